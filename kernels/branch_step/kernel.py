"""The step of both branches in Triton: one element-wise pass, every latent read once."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import wrap_triton

__all__ = ["BLOCK", "branch_step_kernel", "launch_dual", "launch_row", "launch_start"]

#: Elements a program, 8 a thread: two 16-byte accesses of float32.
BLOCK = 1024


@triton.jit
def _normal(element, seed, item, sample):
    """Element ``element`` of a row's noise, computed in float64, see `defectrt.diffusion.noise`."""
    block = element // 4
    low, high = item & 0xFFFFFFFF, (item >> 32) & 0xFFFFFFFF
    zero = tl.zeros_like(block).to(tl.uint32)
    x0, x1, x2, x3 = tl.philox(
        seed,
        block.to(tl.uint32),
        zero + (sample & 0xFFFFFFFF).to(tl.uint32),
        zero + low.to(tl.uint32),
        zero + high.to(tl.uint32),
    )
    first = element % 4 < 2
    u = (tl.where(first, x0, x2).to(tl.float64) + 0.5) / 4294967296.0
    v = (tl.where(first, x1, x3).to(tl.float64) + 0.5) / 4294967296.0
    tau = tl.full([1], 6.283185307179586, tl.float64)
    radius, angle = tl.sqrt(-2.0 * tl.log(u)), tau * v
    return (radius * tl.where(element % 2 == 0, tl.cos(angle), tl.sin(angle))).to(tl.float32)


@triton.jit
def branch_step_kernel(
    z, e, z2, e2, a, b, region, anchor, seed, item, sample, out, out2,
    CP, PIXELS, e_row, e_channel, e_pixel,
    MODE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Grid (⌈C·h·w/BLOCK⌉, B); MODE is row, dual or start.

    CP = C·h·w elements a row of the float32 latents, which are contiguous; ε lies as the U-Net
    leaves it, a channel every e_channel and a pixel every e_pixel elements. ``region`` is the
    mask m in dual and start.
    """
    row = tl.program_id(1).to(tl.int64)
    element = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    real = element < CP
    channel, pixel = element // PIXELS, element % PIXELS
    at, e_at = row * CP + element, row * e_row + channel * e_channel + pixel * e_pixel
    a_row, b_row = tl.load(a + row), tl.load(b + row)
    m = tl.load(region + row * PIXELS + pixel, mask=real, other=0.0)
    step = a_row * tl.load(z + at, mask=real, other=0.0)
    step += b_row * tl.load(e + e_at, mask=real, other=0.0).to(tl.float32)
    if MODE == "row":
        tl.store(out + at, m * step + tl.load(anchor + at, mask=real, other=0.0), mask=real)
    else:
        background = (1 - m) * step
        tl.store(out + at, background, mask=real)
        if MODE == "dual":
            defect = a_row * tl.load(z2 + at, mask=real, other=0.0)
            defect += b_row * tl.load(e2 + e_at, mask=real, other=0.0).to(tl.float32)
        else:
            defect = _normal(
                element, tl.load(seed + row), tl.load(item + row), tl.load(sample + row)
            )
        tl.store(out2 + at, m * defect + background, mask=real)


def _launch(
    mode: str,
    z: Tensor,
    e: Tensor,
    a: Tensor,
    b: Tensor,
    region: Tensor,
    z2: Tensor | None = None,
    e2: Tensor | None = None,
    anchor: Tensor | None = None,
    keys: tuple[Tensor, Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    z, a, b, region = (x.contiguous() for x in (z, a, b, region))
    if e.stride(2) != e.shape[3] * e.stride(3) or (e2 is not None and e2.stride() != e.stride()):
        e, e2 = e.contiguous(), None if e2 is None else e2.contiguous()
    B, C, h, w = z.shape
    seed, item, sample = (a, a, a) if keys is None else (x.contiguous() for x in keys)
    out, out2 = torch.empty_like(z), torch.empty_like(z) if mode != "row" else z
    wrap_triton(branch_step_kernel)[(triton.cdiv(C * h * w, BLOCK), B)](
        z, e,
        z if z2 is None else z2.contiguous(), e if e2 is None else e2,
        a, b, region, z if anchor is None else anchor.contiguous(), seed, item, sample,
        out, out2, C * h * w, h * w, e.stride(0), e.stride(1), e.stride(3),
        MODE=mode, BLOCK=BLOCK, num_warps=4,
    )  # fmt: skip
    return out, out2


def launch_row(
    z: Tensor, epsilon: Tensor, a: Tensor, b: Tensor, region: Tensor, anchor: Tensor
) -> Tensor:
    """Run `reference.row_step` as one kernel."""
    return _launch("row", z, epsilon, a, b, region, anchor=anchor)[0]


def launch_dual(
    background: Tensor,
    defect: Tensor,
    epsilon_background: Tensor,
    epsilon_defect: Tensor,
    a: Tensor,
    b: Tensor,
    mask: Tensor,
) -> tuple[Tensor, Tensor]:
    """Run `reference.dual_step` as one kernel."""
    return _launch("dual", background, epsilon_background, a, b, mask, defect, epsilon_defect)


def launch_start(
    background: Tensor,
    epsilon_background: Tensor,
    a: Tensor,
    b: Tensor,
    mask: Tensor,
    seed: Tensor,
    item: Tensor,
    sample: Tensor,
) -> tuple[Tensor, Tensor]:
    """Run `reference.start_step` as one kernel."""
    keys = (seed, item, sample)
    return _launch("start", background, epsilon_background, a, b, mask, keys=keys)
