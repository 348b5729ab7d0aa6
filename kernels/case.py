"""What every operator is held to: an error budget against float64, and a count of its work.

    error(kernel, exact) ≤ 2 · error(plain, exact) + rounding

*exact* is the reference in float64 on the inputs as they are in the case's precision, *plain* the
reference in that precision, *rounding* the unit roundoff of the output. So a kernel may err twice
as much as PyTorch does, whatever that is, and no tolerance is chosen.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

__all__ = ["Budget", "Case", "Cost", "budget", "error"]


@dataclass(frozen=True)
class Cost:
    """The floor: what must move to and from memory, and what must be computed, at least."""

    bytes: int
    flops: int

    def seconds(self, bandwidth: float, peak: float) -> float:
        """The roofline's time at ``bandwidth`` bytes/s and ``peak`` FLOP/s."""
        return max(self.bytes / bandwidth, self.flops / peak)


class Case(ABC):
    """One shape, precision, memory layout and mask of an operator; ``str`` names it.

    layers  of Stable Diffusion 1.5's U-Net that have this shape
    """

    dtype: torch.dtype
    layers: int

    @abstractmethod
    def inputs(self, device: str = "cpu") -> tuple[Any, ...]:
        """The operands, the same numbers every time."""

    @abstractmethod
    def reference(self, *inputs: Any) -> tuple[Tensor, ...]:
        """The operator in plain PyTorch."""

    def library(self, *inputs: Any) -> tuple[Tensor, ...]:
        """What runs without the kernel, and is the fastest way that PyTorch has."""
        return self.reference(*inputs)

    @abstractmethod
    def launch(self, kernel: ModuleType, *inputs: Any) -> tuple[Tensor, ...]:
        """The operator's kernel, from the module that holds it or a copy of that."""

    @abstractmethod
    def cost(self) -> Cost:
        """Bytes and FLOPs that no implementation can do without."""

    @property
    def rounding(self) -> float:
        """Unit roundoff of the output's precision."""
        return torch.finfo(self.dtype).eps / 2


@dataclass(frozen=True)
class Budget:
    """The two errors of a case, and whether the kernel's is allowed."""

    fast: float
    plain: float
    rounding: float

    @property
    def limit(self) -> float:
        """The largest error allowed."""
        return 2 * self.plain + self.rounding

    @property
    def holds(self) -> bool:
        """False for NaN, too."""
        return self.fast <= self.limit


def budget(case: Case, kernel: ModuleType, device: str = "cpu") -> Budget:
    """Run kernel and reference on a case and compare both with float64."""
    inputs = case.inputs(device)
    exact = case.reference(*(_double(x) for x in inputs))
    return Budget(
        error(case.launch(kernel, *inputs), exact),
        error(case.reference(*inputs), exact),
        case.rounding,
    )


def error(got: tuple[Tensor, ...], exact: tuple[Tensor, ...]) -> float:
    """Largest relative L2 error of any batch row of any output; NaN if one is not a number."""
    worst = [
        (g.double() - e).flatten(1).norm(dim=1) / e.flatten(1).norm(dim=1).clamp_min(1e-30)
        for g, e in zip(got, exact, strict=True)
    ]
    return float(torch.cat(worst).max())


def _double(x: Any) -> Any:
    return x.double() if isinstance(x, Tensor) and x.is_floating_point() else x
