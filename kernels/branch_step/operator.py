"""The steps as PyTorch operators: Triton on CUDA, the reference elsewhere; no gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from ..register import operator
from . import reference

__all__ = ["dual_step", "row_step", "start_step"]


@operator("row_step")
def row_step(
    z: Tensor, epsilon: Tensor, a: Tensor, b: Tensor, region: Tensor, anchor: Tensor
) -> Tensor:
    """z' = region · (a z + b ε) + anchor; shapes as in the package."""
    from .kernel import launch_row

    return launch_row(z, epsilon, a, b, region, anchor)


@operator("dual_step")
def dual_step(
    background: Tensor,
    defect: Tensor,
    epsilon_background: Tensor,
    epsilon_defect: Tensor,
    a: Tensor,
    b: Tensor,
    mask: Tensor,
) -> tuple[Tensor, Tensor]:
    """Eq. 9: (z^m', z*'); shapes as in the package."""
    from .kernel import launch_dual

    return launch_dual(background, defect, epsilon_background, epsilon_defect, a, b, mask)


@operator("start_step")
def start_step(
    background: Tensor,
    epsilon_background: Tensor,
    a: Tensor,
    b: Tensor,
    mask: Tensor,
    seed: Tensor,
    item: Tensor,
    sample: Tensor,
) -> tuple[Tensor, Tensor]:
    """The last inversion step and z*_T: (z^m_T, z*_T); seed, item, sample [B] int64."""
    from .kernel import launch_start

    return launch_start(background, epsilon_background, a, b, mask, seed, item, sample)


row_step.register_kernel("cpu")(reference.row_step)
dual_step.register_kernel("cpu")(reference.dual_step)
start_step.register_kernel("cpu")(reference.start_step)


@row_step.register_fake
def _(z: Tensor, epsilon: Tensor, a: Tensor, b: Tensor, region: Tensor, anchor: Tensor) -> Tensor:
    return torch.empty_like(z, memory_format=torch.contiguous_format)


@dual_step.register_fake
@start_step.register_fake
def _(background: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor]:
    first, second = (
        torch.empty_like(background, memory_format=torch.contiguous_format) for _ in range(2)
    )
    return first, second
