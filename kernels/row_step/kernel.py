"""The row step in Triton: one element-wise pass, every latent read once."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..register import traceable

__all__ = ["BLOCK", "launch", "row_step_kernel"]

#: Elements a program, 8 a thread: two 16-byte accesses of float32.
BLOCK = 1024


@triton.jit
def row_step_kernel(
    z, e, a, b, region, anchor, out, CP, PIXELS, e_row, e_channel, e_pixel, BLOCK: tl.constexpr
):
    """Grid (⌈C·h·w/BLOCK⌉, B).

    CP = C·h·w elements a row of the float32 latents, which are contiguous; ε lies as the U-Net
    leaves it, a channel every e_channel and a pixel every e_pixel elements.
    """
    row = tl.program_id(1).to(tl.int64)
    element = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    real = element < CP
    channel, pixel = element // PIXELS, element % PIXELS
    at, e_at = row * CP + element, row * e_row + channel * e_channel + pixel * e_pixel
    m = tl.load(region + row * PIXELS + pixel, mask=real, other=0.0)
    step = tl.load(a + row) * tl.load(z + at, mask=real, other=0.0)
    step += tl.load(b + row) * tl.load(e + e_at, mask=real, other=0.0).to(tl.float32)
    tl.store(out + at, m * step + tl.load(anchor + at, mask=real, other=0.0), mask=real)


def launch(
    z: Tensor, epsilon: Tensor, a: Tensor, b: Tensor, region: Tensor, anchor: Tensor
) -> Tensor:
    """Run `reference.row_step` as one kernel."""
    z, a, b, region, anchor = (x.contiguous() for x in (z, a, b, region, anchor))
    e = epsilon
    if e.stride(2) != e.shape[3] * e.stride(3):
        e = e.contiguous()
    B, C, h, w = z.shape
    out = torch.empty_like(z)
    traceable(row_step_kernel)[(triton.cdiv(C * h * w, BLOCK), B)](
        z, e, a, b, region, anchor, out, C * h * w, h * w, e.stride(0), e.stride(1), e.stride(3),
        BLOCK=BLOCK, num_warps=4,
    )  # fmt: skip
    return out
