"""The cases of the row step: small ones to test, SD 1.5's to time."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor

from ..case import Case, Cost
from . import reference

__all__ = ["CASES", "SIZES", "StepCase"]


@dataclass(frozen=True)
class StepCase(Case):
    """B rows of [C,h,w] float32 latents; ε in ``epsilon``, channels last or not."""

    h: int
    w: int
    epsilon: torch.dtype = torch.float16
    channels_last: bool = True
    B: int = 2
    C: int = 4
    layers: int = 1
    dtype = torch.float32

    def __str__(self) -> str:
        """All that tells one case from another."""
        form = "nhwc" if self.channels_last else "nchw"
        return f"{self.B}x{self.C}x{self.h}x{self.w}-{str(self.epsilon)[6:]}-{form}"

    def inputs(self, device: str = "cpu") -> tuple[Tensor, ...]:
        """z, ε, a, b, region and anchor."""
        g = torch.Generator().manual_seed(0)
        shape = (self.B, self.C, self.h, self.w)
        z, anchor, e = (torch.randn(shape, generator=g) for _ in range(3))
        form = torch.channels_last if self.channels_last else torch.contiguous_format
        a, b = (torch.rand(self.B, generator=g) + 0.5 for _ in range(2))
        region = (torch.rand(self.B, 1, self.h, self.w, generator=g) < 0.4).float()
        tensors = z, e.to(self.epsilon).contiguous(memory_format=form), a, b, region, anchor
        return tuple(x.to(device) for x in tensors)

    def reference(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The formula as printed."""
        return (reference.row_step(*inputs),)

    def launch(self, kernel: ModuleType, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The Triton kernel."""
        return (kernel.launch(*inputs),)

    def cost(self) -> Cost:
        """Every latent, ε and region once."""
        size = self.B * self.C * self.h * self.w
        return Cost((12 + self.epsilon.itemsize) * size + 4 * size // self.C, 5 * size)


CASES = (
    StepCase(24, 16),
    StepCase(9, 7, torch.bfloat16, channels_last=False),
    StepCase(9, 7, torch.float32, B=3),
)

#: SD 1.5 at 64x64 latents.
SIZES = (StepCase(64, 64, B=16),)
