"""The cases of GEGLU: small ones to test, SD 1.5's to time."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor

from ..case import Case, Cost
from .reference import geglu

__all__ = ["CASES", "SIZES", "GegluCase"]


@dataclass(frozen=True)
class GegluCase(Case):
    """x [B,N,K] times [2F,K]; ``padded`` leaves a gap between the rows of x."""

    N: int
    K: int
    F: int
    dtype: torch.dtype = torch.float32
    padded: bool = False
    B: int = 2
    layers: int = 1

    def __str__(self) -> str:
        """All that tells one case from another."""
        name = f"{self.B}x{self.N}x{self.K}-F{self.F}-{str(self.dtype)[6:]}"
        return name + "-padded" * self.padded

    def inputs(self, device: str = "cpu") -> tuple[Tensor, ...]:
        """x, weight and bias."""
        g = torch.Generator().manual_seed(0)
        x = torch.randn(self.B, self.N, self.K + 8 * self.padded, generator=g)[..., : self.K]
        weight = torch.randn(2 * self.F, self.K, generator=g) / self.K**0.5
        bias = torch.randn(2 * self.F, generator=g)
        return tuple(t.to(self.dtype).to(device) for t in (x, weight, bias))

    def reference(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The linear layer, then the gate."""
        return (geglu(*inputs),)

    def launch(self, kernel: ModuleType, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The Triton kernel."""
        return (kernel.launch(*inputs),)

    def cost(self) -> Cost:
        """Inputs and weights read once, outputs written once."""
        rows = self.B * self.N
        moved = rows * self.K + 2 * self.F * (self.K + 1) + rows * self.F
        return Cost(self.dtype.itemsize * moved, 4 * rows * self.K * self.F)


CASES = (
    *(GegluCase(70, 48, 72, t) for t in (torch.float16, torch.bfloat16, torch.float32)),
    GegluCase(5, 33, 17, padded=True),
    GegluCase(300, 16, 40, B=1),
    GegluCase(130, 64, 64, torch.float16, padded=True, B=1),
)

#: SD 1.5 at 64x64 latents, for a batch of 16 rows.
SIZES = tuple(
    GegluCase(side * side, c, 4 * c, t, B=16, layers=layers)
    for t in (torch.float16, torch.bfloat16)
    for side, c, layers in ((64, 320, 5), (32, 640, 5), (16, 1280, 5), (8, 1280, 1))
)
