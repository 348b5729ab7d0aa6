"""Group normalisation and SiLU in plain PyTorch."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

__all__ = ["group_norm_silu"]


def group_norm_silu(x: Tensor, groups: int, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
    """x [B,C,h,w]; weight, bias [C] -> [B,C,h,w]."""
    return F.silu(F.group_norm(x, groups, weight, bias, epsilon))
