"""Masked inside-outside cross-attention, Eqs. 10 and 11.

    out = m' · softmax(q K_inᵀ/√d) V_in + (1-m') · softmax(q K_outᵀ/√d) V_out

Every query attends to the *inside* prompt where the mask is 1 and to the *outside* prompt where
it is 0. For a binary mask this is exactly one attention over the concatenated keys
``[K_in; K_out]`` with a boolean mask: the excluded half has weight zero, so each query's softmax
runs over its own prompt alone. `concatenated_softmax` is this form, which training and export
run; a soft mask needs the two softmaxes, as `two_softmaxes` and the kernel have them.

Shapes: B rows, H heads, N queries (N = h'w', row-major), L tokens a prompt, d head width,
P prompts in a table.

Engines run the library's attention, `concatenated_softmax`: the kernel saves less than 3 % of a
picture (docs/decisions/0019) and is kept as what was tried, and for TensorRT's plugin.

`reference` is plain PyTorch and differentiable. `kernel` is Triton, for
inference: it reads the prompts' keys and values where they lie in the table, and a tile of
queries that lies wholly inside or outside reads one prompt only. `operator` registers it with
PyTorch so that ``torch.export`` and AOTInductor keep it.
"""

from .operator import masked_attention, masked_attention_map
from .reference import (
    attention_map,
    concatenated_softmax,
    resize_mask,
    table_attention,
    two_softmaxes,
)

__all__ = [
    "attention_map",
    "concatenated_softmax",
    "masked_attention",
    "masked_attention_map",
    "resize_mask",
    "table_attention",
    "two_softmaxes",
]
