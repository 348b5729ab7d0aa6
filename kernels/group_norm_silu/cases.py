"""The cases of group normalisation and SiLU: small ones to test, SD 1.5's to time."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ..case import Case, Cost
from .reference import group_norm_silu

__all__ = ["CASES", "SIZES", "NormCase"]


@dataclass(frozen=True)
class NormCase(Case):
    """x [B,C,side,side] with a mean of ``offset`` standard deviations; channels last or not."""

    C: int
    groups: int
    side: int
    dtype: torch.dtype = torch.float32
    offset: float = 0.0
    channels_last: bool = True
    B: int = 2

    def __str__(self) -> str:
        """All that tells one case from another."""
        form = "nhwc" if self.channels_last else "nchw"
        name = f"{self.B}x{self.C}x{self.side}x{self.side}-G{self.groups}-{str(self.dtype)[6:]}"
        return f"{name}-{form}" + f"-mean{self.offset:g}" * (self.offset > 0)

    def inputs(self, device: str = "cpu") -> tuple[Any, ...]:
        """x, groups, weight, bias and ε."""
        g = torch.Generator().manual_seed(0)
        x = torch.randn(self.B, self.C, self.side, self.side, generator=g) + self.offset
        form = torch.channels_last if self.channels_last else torch.contiguous_format
        x, weight, bias = (
            t.to(self.dtype).to(device)
            for t in (x, torch.randn(self.C, generator=g), torch.randn(self.C, generator=g))
        )
        return x.contiguous(memory_format=form), self.groups, weight, bias, 1e-5

    def reference(self, *inputs: Any) -> tuple[Tensor, ...]:
        """PyTorch's own normalisation and SiLU."""
        return (group_norm_silu(*inputs),)

    def launch(self, kernel: ModuleType, *inputs: Any) -> tuple[Tensor, ...]:
        """The Triton kernels."""
        return (kernel.launch(*inputs),)

    def cost(self) -> Cost:
        """One read and one write, as if a group fitted the chip; about 12 operations an element."""
        size = self.B * self.C * self.side**2
        return Cost(self.dtype.itemsize * 2 * (size + self.C), 12 * size)


CASES = (
    *(NormCase(80, 8, 9, t) for t in (torch.float16, torch.bfloat16, torch.float32)),
    NormCase(320, 32, 33, B=1),
    NormCase(960, 32, 8, torch.float16, B=1),
    NormCase(40, 4, 13, offset=30.0),
    NormCase(8, 4, 5, channels_last=False),
    NormCase(36, 3, 1),
)

#: SD 1.5 at 64x64 latents, for a batch of 16 rows.
SIZES = tuple(
    NormCase(c, 32, side, t, B=16)
    for t in (torch.float16, torch.bfloat16)
    for side, c in ((64, 320), (64, 960), (32, 640), (32, 1920), (16, 1280), (8, 2560))
)
