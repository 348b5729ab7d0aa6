"""GEGLU in plain PyTorch."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

__all__ = ["geglu"]


def geglu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x [...,K], weight [2F,K], bias [2F] -> [...,F]."""
    hidden, gate = F.linear(x, weight, bias).chunk(2, -1)
    return hidden * F.gelu(gate)
