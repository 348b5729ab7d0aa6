"""Self-attention in Triton: one program a query tile, head and row; one online softmax."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..dot import dot
from ..masked_attention.kernel import Config, columns, scores
from ..register import traceable

__all__ = ["config", "launch", "self_attention_kernel"]


@triton.jit
def self_attention_kernel(
    q, k, v, out,
    q_row, q_head, q_token, k_row, k_head, k_token, v_row, v_head, v_token, H, N, scale,
    D: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_L: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Grid (⌈N/BLOCK_N⌉, H, B); the last axis of q, k, v is contiguous; out [B,N,H,D].

    A head is D0 + D1 columns, D0 a power of two. The softmax is in base 2 and float32.
    """
    head, row = tl.program_id(1), tl.program_id(2).to(tl.int64)
    query = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    real = (query < N)[:, None]
    d0, d1 = tl.arange(0, D0), D0 + tl.arange(0, D1)
    q_at = q + row * q_row + head * q_head + query[:, None] * q_token
    q0 = tl.load(q_at + d0[None, :], mask=real & (d0 < D)[None, :], other=0.0)
    q1 = tl.zeros([BLOCK_N, D1], q0.dtype)
    if D > D0:
        q1 = tl.load(q_at + d1[None, :], mask=real & (d1 < D)[None, :], other=0.0)
    k_here, v_here = k + row * k_row + head * k_head, v + row * v_row + head * v_head
    top = tl.full([BLOCK_N], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_N], tl.float32)
    out0 = tl.zeros([BLOCK_N, D0], tl.float32)
    out1 = tl.zeros([BLOCK_N, D1], tl.float32)
    for first in range(0, N, BLOCK_L):
        token = first + tl.arange(0, BLOCK_L)
        score = scores(q0, q1, k_here, k_token, token, N, scale, D, D0, D1, PRECISION)
        new_top = tl.maximum(top, tl.max(score, 1))
        shrink, weight = tl.exp2(top - new_top), tl.exp2(score - new_top[:, None])
        total = total * shrink + tl.sum(weight, 1)
        at, there = v_here + token[:, None] * v_token, (token < N)[:, None]
        v0 = tl.load(at + d0[None, :], mask=there & (d0 < D)[None, :], other=0.0)
        out0 = dot(weight.to(v0.dtype), v0, out0 * shrink[:, None], PRECISION)
        if D > D0:
            v1 = tl.load(at + d1[None, :], mask=there & (d1 < D)[None, :], other=0.0)
            out1 = dot(weight.to(v1.dtype), v1, out1 * shrink[:, None], PRECISION)
        top = new_top
    out_at = out + ((row * N + query) * H + head)[:, None] * D
    kind = out.dtype.element_ty
    tl.store(out_at + d0[None, :], (out0 / total[:, None]).to(kind), mask=real & (d0 < D)[None, :])
    if D > D0:
        tl.store(
            out_at + d1[None, :], (out1 / total[:, None]).to(kind), mask=real & (d1 < D)[None, :]
        )


def config(width: int, dtype: torch.dtype) -> Config:
    """The one configuration of a head width up to 96: fixed, so that bits do not change."""
    whole, rest = columns(width)
    if dtype == torch.float32:
        return Config(width, whole, rest, 32, 16, "ieee", 4, 2)
    return Config(width, whole, rest, 128, 64, "tf32", 8, 2)


def launch(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Run the kernel; shapes as in `reference.self_attention`, d at most 96.

    Returns [B,H,N,d], a view of [B,N,H,d] memory, so that joining the heads is free.
    """
    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
    B, H, N, D = q.shape
    if D > 96:
        raise ValueError(f"heads of {D} columns; this kernel is for 96 at most")
    c = config(D, q.dtype)
    out = q.new_empty(B, N, H, D)
    traceable(self_attention_kernel)[(triton.cdiv(N, c.BLOCK_N), H, B)](
        q, k, v, out, *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], H, N,
        D**-0.5 * 1.4426950408889634,
        num_warps=c.warps, num_stages=c.stages, **c.constants(),
    )  # fmt: skip
    return out.transpose(1, 2)
