"""The row step in plain PyTorch."""

from __future__ import annotations

from torch import Tensor

__all__ = ["row_step"]


def row_step(
    z: Tensor, epsilon: Tensor, a: Tensor, b: Tensor, region: Tensor, anchor: Tensor
) -> Tensor:
    """z' = region · (a z + b ε) + anchor; shapes as in the package."""
    a, b = (x.view(-1, 1, 1, 1) for x in (a, b))
    return region * (a * z + b * epsilon.to(z)) + anchor
