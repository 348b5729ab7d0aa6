"""Self-attention in plain PyTorch."""

from __future__ import annotations

from torch import Tensor

__all__ = ["self_attention"]


def self_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q kᵀ/√d) v; q, k, v and what is returned are [B,H,N,d]."""
    return (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v
