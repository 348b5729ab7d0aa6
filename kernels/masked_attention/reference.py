"""Eqs. 10 and 11 in plain PyTorch: what the kernel is measured against and training runs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "attention_map",
    "concatenated_softmax",
    "resize_mask",
    "table_attention",
    "two_softmaxes",
]


def two_softmaxes(
    q: Tensor, k_in: Tensor, v_in: Tensor, k_out: Tensor, v_out: Tensor, mask: Tensor
) -> Tensor:
    """Eqs. 10 and 11 as printed; the reference, for soft masks too.

    q [B,H,N,d]; k_*, v_* [B,H,L,d] (the two prompts may differ in length); mask [B,N] in [0,1].
    Returns [B,H,N,d].
    """
    m = mask[:, None, :, None].to(q.dtype)
    inside = _attend(q, k_in, v_in)
    outside = _attend(q, k_out, v_out)
    return m * inside + (1 - m) * outside


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v


def concatenated_softmax(
    q: Tensor, k_in: Tensor, v_in: Tensor, k_out: Tensor, v_out: Tensor, mask: Tensor
) -> Tensor:
    """The same for a binary mask as one attention over ``[K_in; K_out]``.

    Shapes as in `two_softmaxes`; mask [B,N] is read as boolean (non-zero = inside).
    """
    inside = mask.bool()[:, None, :, None]
    visible = torch.cat(
        [
            inside.expand(-1, -1, -1, k_in.shape[2]),
            (~inside).expand(-1, -1, -1, k_out.shape[2]),
        ],
        dim=-1,
    )
    k, v = torch.cat([k_in, k_out], dim=2), torch.cat([v_in, v_out], dim=2)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=visible)


def table_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    inside: Tensor,
    outside: Tensor,
    mask: Tensor,
    content: Tensor,
) -> tuple[Tensor, Tensor]:
    """Eqs. 10, 11 and the map of Eq. 13 with each row's prompts taken from a table by index.

    q [B,H,N,d]; k, v [P,H,L,d]; inside, outside [B] int64; mask [B,N] in [0,1];
    content [P,L]. Returns [B,H,N,d] and [B,N].
    """
    out = two_softmaxes(q, k[inside], v[inside], k[outside], v[outside], mask)
    return out, attention_map(q, k[inside], content[inside])


def attention_map(q: Tensor, k_in: Tensor, content: Tensor) -> Tensor:
    """Where the inside prompt's content tokens are attended to, averaged over heads (Eq. 13).

    q [B,H,N,d]; k_in [B,H,L,d]; content [B,L], 1 for tokens that name the defect and 0 for
    begin, end and padding. Returns [B,N] in [0,1]: the softmax runs over all tokens of the
    prompt, so begin and padding tokens act as the sink they are in trained models. The softmax and
    the map are float32 at least.
    """
    wide = torch.promote_types(q.dtype, torch.float32)
    weights = (q @ k_in.mT / q.shape[-1] ** 0.5).to(wide).softmax(-1)
    return (weights * content[:, None, None, :].to(wide)).sum(-1).mean(1)


def resize_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Reduce a mask to an attention level by max pooling: ``m'`` of Eqs. 10 and 11.

    mask [B,1,h,w] in [0,1], size (h', w') with h' dividing h and w' dividing w. A cell is inside
    if anything in it is, so a defect of one latent pixel is alive at every level; averaging or
    nearest sampling would lose it at 8x8.
    """
    h, w = mask.shape[-2:]
    if h % size[0] or w % size[1]:
        raise ValueError(f"a mask of {h}x{w} does not divide into {size[0]}x{size[1]} cells")
    return F.max_pool2d(mask, (h // size[0], w // size[1]))
