"""The kernel as a PyTorch operator, which ``torch.export`` and AOTInductor keep.

``torch.ops.defectrt.masked_attention`` and ``.masked_attention_map`` run Triton on CUDA and the
reference elsewhere. They have no gradient: training differentiates the reference.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..register import operator
from . import reference

__all__ = ["masked_attention", "masked_attention_map"]


@operator("masked_attention")
def _masked_attention(
    q: Tensor, k: Tensor, v: Tensor, inside: Tensor, outside: Tensor, mask: Tensor
) -> Tensor:
    from .kernel import launch

    return launch(q, k, v, inside, outside, mask, None)[0]


@operator("masked_attention_map")
def _masked_attention_map(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    inside: Tensor,
    outside: Tensor,
    mask: Tensor,
    content: Tensor,
) -> tuple[Tensor, Tensor]:
    from .kernel import launch

    out, share = launch(q, k, v, inside, outside, mask, content)
    assert share is not None
    return out, share


def _like_kernel(out: Tensor) -> Tensor:
    """The same values in the memory layout of the kernel's output."""
    return out.transpose(1, 2).contiguous().transpose(1, 2)


@_masked_attention.register_kernel("cpu")
def _(q: Tensor, k: Tensor, v: Tensor, inside: Tensor, outside: Tensor, mask: Tensor) -> Tensor:
    out = reference.two_softmaxes(q, k[inside], v[inside], k[outside], v[outside], mask)
    return _like_kernel(out)


@_masked_attention_map.register_kernel("cpu")
def _(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    inside: Tensor,
    outside: Tensor,
    mask: Tensor,
    content: Tensor,
) -> tuple[Tensor, Tensor]:
    out, share = reference.table_attention(q, k, v, inside, outside, mask, content)
    return _like_kernel(out), share.float()


def _empty_out(q: Tensor) -> Tensor:
    B, H, N, D = q.shape
    return q.new_empty(B, N, H, D).transpose(1, 2)


@_masked_attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, inside: Tensor, outside: Tensor, mask: Tensor) -> Tensor:
    return _empty_out(q)


@_masked_attention_map.register_fake
def _(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    inside: Tensor,
    outside: Tensor,
    mask: Tensor,
    content: Tensor,
) -> tuple[Tensor, Tensor]:
    return _empty_out(q), q.new_empty(q.shape[0], q.shape[2], dtype=torch.float32)


def masked_attention(
    q: Tensor, k: Tensor, v: Tensor, inside: Tensor, outside: Tensor, mask: Tensor
) -> Tensor:
    """Eqs. 10 and 11 with prompts from a table; shapes as in `reference.table_attention`.

    q, k, v share a dtype (float16, bfloat16 or float32); the mask may be soft, of any dtype.
    A row whose prompt index is not in the table gets NaN on a GPU and an IndexError elsewhere.
    """
    _check(q, k, v, mask)
    return _masked_attention(q, k, v, inside, outside, mask)


def masked_attention_map(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    inside: Tensor,
    outside: Tensor,
    mask: Tensor,
    content: Tensor,
) -> tuple[Tensor, Tensor]:
    """The same, and the map of Eq. 13 out of the same pass: [B,H,N,d] and [B,N] float32.

    The map is wanted everywhere, so every tile reads the inside prompt.
    """
    _check(q, k, v, mask)
    return _masked_attention_map(q, k, v, inside, outside, mask, content)


def _check(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> None:
    if not q.dtype == k.dtype == v.dtype:
        raise ValueError(f"q, k and v differ in dtype: {q.dtype}, {k.dtype}, {v.dtype}")
    if k.shape != v.shape or k.shape[1] != q.shape[1] or k.shape[3] != q.shape[3]:
        raise ValueError(
            f"q {list(q.shape)} does not fit the tables k {list(k.shape)}, v {list(v.shape)}"
        )
    if mask.shape != (q.shape[0], q.shape[2]):
        raise ValueError(f"a mask of {list(mask.shape)} for queries of {list(q.shape)}")
