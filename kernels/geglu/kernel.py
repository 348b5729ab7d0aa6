"""GEGLU in Triton: a matrix product with two accumulators and the gate as its epilogue."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..dot import dot
from ..register import traceable

__all__ = ["Config", "config", "geglu_kernel", "launch"]


@triton.jit
def geglu_kernel(
    x, weight, bias, out, M, F, K, x_row,
    BLOCK_M: tl.constexpr, BLOCK_F: tl.constexpr, BLOCK_K: tl.constexpr,
    BAND: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Grid (⌈M/BLOCK_M⌉·⌈F/BLOCK_F⌉); x [M,K] with rows x_row apart, weight [2F,K], out [M,F].

    Programs walk in bands of BAND row tiles, so that those at work at one time share rows and
    columns in the L2 cache.
    """
    tiles_m, tiles_f = tl.cdiv(M, BLOCK_M), tl.cdiv(F, BLOCK_F)
    program, band_size = tl.program_id(0), BAND * tiles_f
    first = program // band_size * BAND
    height = tl.minimum(tiles_m - first, BAND)
    tile_m = first + program % band_size % height
    tile_f = program % band_size // height
    row = (tile_m * BLOCK_M + tl.arange(0, BLOCK_M)).to(tl.int64)
    column = tile_f * BLOCK_F + tl.arange(0, BLOCK_F)
    k = tl.arange(0, BLOCK_K)
    here, there = (row < M)[:, None], (column < F)[None, :]
    x_at = x + row[:, None] * x_row + k[None, :]
    hidden_at = weight + column[None, :] * K + k[:, None]
    gate_at = hidden_at + F.to(tl.int64) * K
    hidden = tl.zeros([BLOCK_M, BLOCK_F], tl.float32)
    gate = tl.zeros([BLOCK_M, BLOCK_F], tl.float32)
    for done in range(0, K, BLOCK_K):
        left = k < K - done
        x_tile = tl.load(x_at + done, mask=here & left[None, :], other=0.0)
        wanted = there & left[:, None]
        hidden = dot(x_tile, tl.load(hidden_at + done, mask=wanted, other=0.0), hidden, PRECISION)
        gate = dot(x_tile, tl.load(gate_at + done, mask=wanted, other=0.0), gate, PRECISION)
    hidden += tl.load(bias + column, mask=column < F, other=0.0).to(tl.float32)[None, :]
    gate += tl.load(bias + F + column, mask=column < F, other=0.0).to(tl.float32)[None, :]
    y = hidden * gate * 0.5 * (1 + tl.erf(gate * 0.7071067811865476))
    at = out + row[:, None] * F + column[None, :]
    tl.store(at, y.to(out.dtype.element_ty), mask=here & there)


@dataclass(frozen=True)
class Config:
    """Tile sizes, warps and pipeline stages of a precision."""

    BLOCK_M: int
    BLOCK_F: int
    BLOCK_K: int
    BAND: int
    PRECISION: str
    warps: int
    stages: int

    def constants(self) -> dict[str, int | str]:
        """The kernel's compile-time arguments."""
        names = ("BLOCK_M", "BLOCK_F", "BLOCK_K", "BAND", "PRECISION")
        return {name: getattr(self, name) for name in names}


def config(dtype: torch.dtype) -> Config:
    """One configuration a precision; the 16-bit one is a 128 x 128 product in two halves."""
    if dtype == torch.float32:
        return Config(32, 32, 16, 8, "ieee", 4, 2)
    return Config(128, 64, 32, 8, "tf32", 8, 4)


def launch(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Run the kernel; shapes as in `reference.geglu`."""
    rows = x.flatten(0, -2)
    rows = rows if rows.stride(-1) == 1 else rows.contiguous()
    (M, K), F, c = rows.shape, weight.shape[0] // 2, config(x.dtype)
    out = x.new_empty(*x.shape[:-1], F)
    grid = (triton.cdiv(M, c.BLOCK_M) * triton.cdiv(F, c.BLOCK_F),)
    traceable(geglu_kernel)[grid](
        rows, weight.contiguous(), bias.contiguous(), out, M, F, K, rows.stride(0),
        num_warps=c.warps, num_stages=c.stages, **c.constants(),
    )  # fmt: skip
    return out
