"""GEGLU as a PyTorch operator: Triton on CUDA, the reference elsewhere; no gradient."""

from __future__ import annotations

from torch import Tensor

from ..register import operator
from . import reference

__all__ = ["geglu"]


@operator("geglu")
def geglu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x [...,K], weight [2F,K], bias [2F] -> [...,F]; shapes as in the package."""
    from .kernel import launch

    return launch(x, weight, bias)


geglu.register_kernel("cpu")(reference.geglu)


@geglu.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[0] // 2)
