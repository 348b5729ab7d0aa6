"""GEGLU of the transformer blocks: the product and its gate in one pass.

    y = (x W_hᵀ + b_h) · gelu(x W_gᵀ + b_g)        gelu(x) = x Φ(x), the exact form

x [...,K]; weight [2F,K] = [W_h; W_g] and bias [2F], as diffusers keeps them; y [...,F].

The matrix product writes 2F columns and the gate reads them back and writes F: 10 bytes an output
element in 16 bits, of which 2 remain when each program computes both halves of its tile and
multiplies them before it writes. A compiler cannot do that: the two halves of a chunk lie in
different tiles of its product.
"""

from .operator import geglu

__all__ = ["geglu"]
