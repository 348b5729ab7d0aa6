"""Group normalisation and SiLU over channels-last images.

    y = silu((x - μ_g) / √(σ²_g + ε) · γ + β)        silu(x) = x / (1 + e^-x)

x [B,C,h,w] in channels-last memory; γ, β [C]; μ_g, σ²_g over the C/G channels and all pixels of a
group, in float32. Two kernels: statistics over chunks of pixels, then the normalisation, so x is
read twice and y written once: 6 bytes an element in 16 bits. That is also what a compiler's two
kernels move; see docs/decisions/0012 for what speaks for and against this one.
"""

from .operator import group_norm_silu

__all__ = ["group_norm_silu"]
