"""The step as a PyTorch operator: Triton on CUDA, the reference elsewhere; no gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from ..register import operator
from . import reference

__all__ = ["row_step"]


@operator("row_step")
def row_step(
    z: Tensor, epsilon: Tensor, a: Tensor, b: Tensor, region: Tensor, anchor: Tensor
) -> Tensor:
    """z' = region · (a z + b ε) + anchor; shapes as in the package."""
    from .kernel import launch

    return launch(z, epsilon, a, b, region, anchor)


row_step.register_kernel("cpu")(reference.row_step)


@row_step.register_fake
def _(z: Tensor, epsilon: Tensor, a: Tensor, b: Tensor, region: Tensor, anchor: Tensor) -> Tensor:
    return torch.empty_like(z, memory_format=torch.contiguous_format)
