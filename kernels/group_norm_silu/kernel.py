"""Group normalisation and SiLU in Triton: statistics over chunks, then the normalisation.

A program takes a span of SPAN channels, the fewest whole groups that fill whole 32-byte sectors
(8 groups of 10, 4 of 20, 2 of 40, one of 80): a single group of 10 channels in 16 bits is 20
bytes a pixel and would fetch about 2.4 times what it uses.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import wrap_triton

__all__ = ["Config", "config", "launch", "normalise_kernel", "statistics_kernel"]


@triton.jit
def _statistics(values, used, belongs, GROUP: tl.constexpr):
    """Mean and sum of squared deviations of each group over a tile.

    values [pixels, channels], used likewise, belongs [groups, channels].
    """
    count = tl.sum(tl.sum(used.to(tl.float32), 0)[None, :] * belongs, 1)
    mean = tl.sum(tl.sum(tl.where(used, values, 0.0), 0)[None, :] * belongs, 1)
    mean = mean / tl.maximum(count, 1.0)
    of_channel = tl.sum(mean[:, None] * belongs, 0)
    deviation = tl.where(used, values - of_channel[None, :], 0.0)
    squares = tl.sum(tl.sum(deviation * deviation, 0)[None, :] * belongs, 1)
    return count, mean, squares


@triton.jit
def statistics_kernel(
    x, partial, PIXELS, CHUNK, C, GROUPS,
    SPAN: tl.constexpr, WIDTH: tl.constexpr, GROUP: tl.constexpr, HEIGHT: tl.constexpr,
    BLOCK_P: tl.constexpr,
):  # fmt: skip
    """Grid (chunks, C/SPAN, B): count, mean and squares of each group over CHUNK pixels.

    x [B,PIXELS,C]; partial [B,chunks,3,GROUPS] float32; WIDTH ≥ SPAN and HEIGHT ≥ SPAN/GROUP are
    powers of two.
    """
    chunk, span, row = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    channel, group = tl.arange(0, WIDTH), tl.arange(0, HEIGHT)
    mine = channel < SPAN
    belongs = ((channel // GROUP)[None, :] == group[:, None]) & mine[None, :]
    belongs = belongs.to(tl.float32)
    count = tl.zeros([HEIGHT], tl.float32)
    mean = tl.zeros([HEIGHT], tl.float32)
    squares = tl.zeros([HEIGHT], tl.float32)
    end = tl.minimum((chunk + 1) * CHUNK, PIXELS)
    for first in range(chunk * CHUNK, end, BLOCK_P):
        pixel = first + tl.arange(0, BLOCK_P)
        used = (pixel < end)[:, None] & mine[None, :]
        at = x + (row * PIXELS + pixel)[:, None] * C + span * SPAN + channel[None, :]
        values = tl.load(at, mask=used, other=0.0).to(tl.float32)
        n, m, s = _statistics(values, used, belongs, GROUP)
        both, apart = tl.maximum(count + n, 1.0), m - mean
        squares += s + apart * apart * (count * n / both)
        mean += apart * (n / both)
        count += n
    at = partial + (row * tl.num_programs(0) + chunk) * 3 * GROUPS + span * (SPAN // GROUP) + group
    real = group < SPAN // GROUP
    tl.store(at, count, mask=real)
    tl.store(at + GROUPS, mean, mask=real)
    tl.store(at + 2 * GROUPS, squares, mask=real)


@triton.jit
def normalise_kernel(
    x, partial, weight, bias, y, PIXELS, CHUNKS, C, GROUPS, epsilon,
    SPAN: tl.constexpr, WIDTH: tl.constexpr, GROUP: tl.constexpr, HEIGHT: tl.constexpr,
    BLOCK_P: tl.constexpr, MOST_CHUNKS: tl.constexpr,
):  # fmt: skip
    """Grid (⌈PIXELS/BLOCK_P⌉, C/SPAN, B): y = silu((x - μ)/√(σ²+ε) · γ + β).

    Every program puts the chunks' statistics together, in the same order.
    """
    span, row = tl.program_id(1), tl.program_id(2).to(tl.int64)
    channel, group, chunk = tl.arange(0, WIDTH), tl.arange(0, HEIGHT), tl.arange(0, MOST_CHUNKS)
    mine = channel < SPAN
    belongs = ((channel // GROUP)[None, :] == group[:, None]) & mine[None, :]
    belongs = belongs.to(tl.float32)
    at = partial + (row * CHUNKS + chunk)[:, None] * 3 * GROUPS
    at += span * (SPAN // GROUP) + group[None, :]
    real = (chunk < CHUNKS)[:, None] & (group < SPAN // GROUP)[None, :]
    n = tl.load(at, mask=real, other=0.0)
    means = tl.load(at + GROUPS, mask=real, other=0.0)
    squares = tl.load(at + 2 * GROUPS, mask=real, other=0.0)
    total = tl.maximum(tl.sum(n, 0), 1.0)
    mean = tl.sum(n * means, 0) / total
    apart = means - mean[None, :]
    variance = tl.sum(squares + n * apart * apart, 0) / total
    of_mean = tl.sum(mean[:, None] * belongs, 0)
    of_scale = tl.sum((1 / tl.sqrt(variance + epsilon))[:, None] * belongs, 0)

    column = span * SPAN + channel
    gamma = tl.load(weight + column, mask=mine, other=0.0).to(tl.float32) * of_scale
    beta = tl.load(bias + column, mask=mine, other=0.0).to(tl.float32)
    pixel = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    used = (pixel < PIXELS)[:, None] & mine[None, :]
    offset = (row * PIXELS + pixel)[:, None] * C + column[None, :]
    values = tl.load(x + offset, mask=used, other=0.0).to(tl.float32)
    z = (values - of_mean[None, :]) * gamma[None, :] + beta[None, :]
    tl.store(y + offset, (z / (1 + tl.exp(-z))).to(y.dtype.element_ty), mask=used)


@dataclass(frozen=True)
class Config:
    """Tile sizes of a number of channels in a number of groups."""

    SPAN: int
    WIDTH: int
    GROUP: int
    HEIGHT: int
    BLOCK_P: int
    warps: int = 8

    def constants(self) -> dict[str, int]:
        """The compile-time arguments that both kernels share."""
        return {
            name: getattr(self, name) for name in ("SPAN", "WIDTH", "GROUP", "HEIGHT", "BLOCK_P")
        }


#: Chunks of pixels that the statistics are gathered over, at most.
MOST_CHUNKS = 16


def config(channels: int, groups: int) -> Config:
    """Spans of whole sectors where the groups allow it; tiles of 8,192 elements."""
    group = channels // groups
    wanted = 16 // gcd(group, 16)
    together = wanted if groups % wanted == 0 else groups
    width = triton.next_power_of_2(together * group)
    return Config(
        together * group, width, group, triton.next_power_of_2(together), max(1, 8192 // width)
    )


def launch(x: Tensor, groups: int, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
    """Run both kernels; shapes as in `reference.group_norm_silu`; y is channels last."""
    x = x.contiguous(memory_format=torch.channels_last)
    B, C, h, w = x.shape
    c, pixels = config(C, groups), h * w
    chunk = triton.cdiv(triton.cdiv(pixels, c.BLOCK_P), MOST_CHUNKS) * c.BLOCK_P
    chunks = triton.cdiv(pixels, chunk)
    partial = torch.empty(B, chunks, 3, groups, dtype=torch.float32, device=x.device)
    y = torch.empty_like(x)
    wrap_triton(statistics_kernel)[(chunks, C // c.SPAN, B)](
        x, partial, pixels, chunk, C, groups, num_warps=c.warps, **c.constants()
    )
    wrap_triton(normalise_kernel)[(triton.cdiv(pixels, c.BLOCK_P), C // c.SPAN, B)](
        x, partial, weight.contiguous(), bias.contiguous(), y, pixels, chunks, C, groups, epsilon,
        MOST_CHUNKS=MOST_CHUNKS, num_warps=c.warps, **c.constants(),
    )  # fmt: skip
    return y
