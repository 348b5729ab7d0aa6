"""Masked inside-outside cross-attention in Triton: one program a query tile, head and row."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..dot import dot
from ..register import traceable

__all__ = ["Config", "columns", "config", "launch", "masked_attention_kernel", "scores"]


@triton.jit
def scores(
    q0, q1, k, k_token, token, L, scale,
    D: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """q Kᵀ/√d · log₂e of a tile with a block of tokens; -∞ past the last token."""
    d0, d1 = tl.arange(0, D0), D0 + tl.arange(0, D1)
    real, at = (token < L)[None, :], k + token[None, :] * k_token
    k0 = tl.load(at + d0[:, None], mask=real & (d0 < D)[:, None], other=0.0)
    score = tl.zeros([q0.shape[0], token.shape[0]], tl.float32)
    score = dot(q0, k0, score, PRECISION)
    if D > D0:
        k1 = tl.load(at + d1[:, None], mask=real & (d1 < D)[:, None], other=0.0)
        score = dot(q1, k1, score, PRECISION)
    return tl.where(real, score * scale, float("-inf"))


@triton.jit
def masked_attention_kernel(
    q, k, v, inside, outside, mask, content, out, share,
    q_row, q_token, k_prompt, k_token, v_prompt, v_token, H, N, L, P, scale,
    Q_HEAD: tl.constexpr, K_HEAD: tl.constexpr, V_HEAD: tl.constexpr,
    D: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_L: tl.constexpr,
    MAP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Grid (⌈N/BLOCK_N⌉, H, B); the last axis of q, k, v is contiguous, the rest has strides.

    inside, outside [B]; mask [B,N]; content [P,L]; out [B,N,H,D]; share [B,H,N] float32.
    A head is split into D0 + D1 columns, D0 a power of two, so that 40 = 32 + 8, 80 = 64 + 16
    and 160 = 128 + 32 are padded to 48, 80 and 160 rather than to 64, 128 and 256.

    Each prompt is passed over twice: first for the softmax's maximum and sum, in base 2 and
    float32, then for the values with the final weights. Scores are computed twice for that, and
    both prompts add into one accumulator, without which 160 columns do not fit the registers.
    """
    head, row = tl.program_id(1), tl.program_id(2).to(tl.int64)
    query = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    real = query < N
    d0, d1 = tl.arange(0, D0), D0 + tl.arange(0, D1)
    q += row * q_row + head * Q_HEAD
    q0 = tl.load(
        q + query[:, None] * q_token + d0[None, :],
        mask=real[:, None] & (d0 < D)[None, :],
        other=0.0,
    )
    q1 = tl.zeros([BLOCK_N, D1], q0.dtype)
    if D > D0:
        q1 = tl.load(
            q + query[:, None] * q_token + d1[None, :],
            mask=real[:, None] & (d1 < D)[None, :],
            other=0.0,
        )
    m = tl.load(mask + row * N + query, mask=real, other=0.0).to(tl.float32)
    out0 = tl.zeros([BLOCK_N, D0], tl.float32)
    out1 = tl.zeros([BLOCK_N, D1], tl.float32)
    for side in range(2):
        is_inside = side == 0
        share_of_side = tl.where(real, tl.where(is_inside, m, 1 - m), 0.0)
        if (tl.max(share_of_side, 0) > 0) | (MAP & is_inside):
            prompt = tl.load(tl.where(is_inside, inside, outside) + row).to(tl.int64)
            # an index outside the table reads prompt 0 and gives NaN: never another's memory
            known = (prompt >= 0) & (prompt < P)
            prompt = tl.where(known, prompt, 0)
            k_here = k + prompt * k_prompt + head * K_HEAD
            v_here = v + prompt * v_prompt + head * V_HEAD
            top = tl.full([BLOCK_N], float("-inf"), tl.float32)
            total = tl.where(known, tl.zeros([BLOCK_N], tl.float32), float("nan"))
            named = tl.zeros([BLOCK_N], tl.float32)
            for first in range(0, L, BLOCK_L):
                token = first + tl.arange(0, BLOCK_L)
                score = scores(q0, q1, k_here, k_token, token, L, scale, D, D0, D1, PRECISION)
                new_top = tl.maximum(top, tl.max(score, 1))
                shrink, weight = tl.exp2(top - new_top), tl.exp2(score - new_top[:, None])
                total = total * shrink + tl.sum(weight, 1)
                if MAP:
                    names = tl.load(content + prompt * L + token, mask=token < L, other=0.0)
                    named = named * shrink + tl.sum(weight * names.to(tl.float32)[None, :], 1)
                top = new_top
            if MAP and is_inside:
                tl.store(share + (row * H + head) * N + query, named / total, mask=real)
            for first in range(0, L, BLOCK_L):
                token = first + tl.arange(0, BLOCK_L)
                score = scores(q0, q1, k_here, k_token, token, L, scale, D, D0, D1, PRECISION)
                weight = tl.exp2(score - top[:, None]) * (share_of_side / total)[:, None]
                at, there = v_here + token[:, None] * v_token, (token < L)[:, None]
                v0 = tl.load(at + d0[None, :], mask=there & (d0 < D)[None, :], other=0.0)
                out0 = dot(weight.to(v0.dtype), v0, out0, PRECISION)
                if D > D0:
                    v1 = tl.load(at + d1[None, :], mask=there & (d1 < D)[None, :], other=0.0)
                    out1 = dot(weight.to(v1.dtype), v1, out1, PRECISION)

    out += ((row * N + query) * H + head)[:, None] * D
    tl.store(
        out + d0[None, :],
        out0.to(out.dtype.element_ty),
        mask=real[:, None] & (d0 < D)[None, :],
    )
    if D > D0:
        tl.store(
            out + d1[None, :],
            out1.to(out.dtype.element_ty),
            mask=real[:, None] & (d1 < D)[None, :],
        )


@dataclass(frozen=True)
class Config:
    """Tile sizes, warps and pipeline stages of one head width and precision."""

    D: int
    D0: int
    D1: int
    BLOCK_N: int
    BLOCK_L: int
    PRECISION: str
    warps: int
    stages: int

    def constants(self) -> dict[str, int | str]:
        """The compile-time arguments that a head's width and precision decide."""
        names = ("D", "D0", "D1", "BLOCK_N", "BLOCK_L", "PRECISION")
        return {name: getattr(self, name) for name in names}


def columns(width: int) -> tuple[int, int]:
    """Powers of 2, at least 16, in which the columns of a head go: the first part and the rest."""
    whole = max(16, 1 << (width.bit_length() - 1))
    return whole, max(16, triton.next_power_of_2(width - whole)) if width > whole else 16


def config(width: int, dtype: torch.dtype) -> Config:
    """The one configuration of a head width: fixed, so that the same inputs give the same bits.

    Tokens go in blocks of 16, since 77 tokens then fill 80 places. Tiles are the largest that
    compile without spills for every compute capability, with Triton 3.5, 3.6 and 3.9; past 64
    columns that takes a third stage, or blocks of 32 tokens. float32 is multiplied as float32
    (``ieee``): TF32 would leave the error budget.
    """
    whole, rest = columns(width)
    if dtype == torch.float32:
        tile, stages = 64 if width <= 48 else 32, 2 if width <= 96 else 3
        return Config(width, whole, rest, tile, 16, "ieee", 8, stages)
    if width > 96:
        return Config(width, whole, rest, 16, 32, "tf32", 4, 2)
    return Config(width, whole, rest, 64, 16, "tf32", 4, 2 if width <= 64 else 3)


def launch(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    inside: Tensor,
    outside: Tensor,
    mask: Tensor,
    content: Tensor | None,
) -> tuple[Tensor, Tensor | None]:
    """Run the kernel; shapes as in `reference.table_attention`.

    Returns (out [B,H,N,d], a view of [B,N,H,d] memory, so that joining the heads is free; the
    map [B,N] float32, or None without ``content``). Heads are averaged after the kernel, in
    fixed order: atomics would make the last bit a matter of chance.
    """
    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
    (B, H, N, D), (P, _, L, _) = q.shape, k.shape
    c = config(D, q.dtype)
    out = q.new_empty(B, N, H, D)
    share = q.new_empty(B, H, N if content is not None else 0, dtype=torch.float32)
    grid = (triton.cdiv(N, c.BLOCK_N), H, B)
    traceable(masked_attention_kernel)[grid](
        q, k, v, inside.contiguous(), outside.contiguous(), mask.contiguous(),
        q if content is None else content.contiguous(), out, share,
        q.stride(0), q.stride(2), k.stride(0), k.stride(2), v.stride(0), v.stride(2),
        H, N, L, P, D**-0.5 * 1.4426950408889634,
        Q_HEAD=q.stride(1), K_HEAD=k.stride(1), V_HEAD=v.stride(1),
        MAP=content is not None, num_warps=c.warps, num_stages=c.stages, **c.constants(),
    )  # fmt: skip
    return out.transpose(1, 2), None if content is None else share.mean(1)
