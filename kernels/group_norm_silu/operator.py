"""The normalisation as a PyTorch operator: Triton on CUDA, the reference elsewhere; no gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from ..register import operator
from . import reference

__all__ = ["group_norm_silu"]


@operator("group_norm_silu")
def group_norm_silu(x: Tensor, groups: int, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
    """x [B,C,h,w]; weight, bias [C] -> [B,C,h,w] channels last; see the package."""
    from .kernel import launch

    return launch(x, groups, weight, bias, epsilon)


@group_norm_silu.register_kernel("cpu")
def _(x: Tensor, groups: int, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
    y = reference.group_norm_silu(x, groups, weight, bias, epsilon)
    return y.contiguous(memory_format=torch.channels_last)


@group_norm_silu.register_fake
def _(x: Tensor, groups: int, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
    return torch.empty_like(x, memory_format=torch.channels_last)
