"""The cases of the step of both branches: small ones to test, SD 1.5's to time."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Literal

import torch
from torch import Tensor

from ..case import Case, Cost
from . import reference

__all__ = ["CASES", "SIZES", "StepCase"]


@dataclass(frozen=True)
class StepCase(Case):
    """B rows of [C,h,w] float32 latents; ε in ``epsilon``, channels last or not."""

    mode: Literal["row", "dual", "start"]
    h: int
    w: int
    epsilon: torch.dtype = torch.float16
    channels_last: bool = True
    B: int = 2
    C: int = 4
    dtype = torch.float32

    def __str__(self) -> str:
        """All that tells one case from another."""
        form = "nhwc" if self.channels_last else "nchw"
        return f"{self.mode}-{self.B}x{self.C}x{self.h}x{self.w}-{str(self.epsilon)[6:]}-{form}"

    def inputs(self, device: str = "cpu") -> tuple[Tensor, ...]:
        """The operands of the case's mode, in its order."""
        g = torch.Generator().manual_seed(0)
        shape = (self.B, self.C, self.h, self.w)
        z, other = (torch.randn(shape, generator=g) for _ in range(2))
        form = torch.channels_last if self.channels_last else torch.contiguous_format
        e, e2 = (
            torch.randn(shape, generator=g).to(self.epsilon).contiguous(memory_format=form)
            for _ in range(2)
        )
        a, b = (torch.rand(self.B, generator=g) + 0.5 for _ in range(2))
        mask = (torch.rand(self.B, 1, self.h, self.w, generator=g) < 0.4).float()
        keys = [
            torch.randint(-(2**62), 2**62, (self.B,), generator=g),
            torch.randint(-(2**62), 2**62, (self.B,), generator=g),
            torch.arange(self.B),
        ]
        tensors = {
            "row": [z, e, a, b, mask, other],
            "dual": [z, other, e, e2, a, b, mask],
            "start": [z, e, a, b, mask, *keys],
        }[self.mode]
        return tuple(x.to(device) for x in tensors)

    def reference(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Eqs. 3 and 9 as printed."""
        if self.mode == "row":
            return (reference.row_step(*inputs),)
        return (reference.dual_step if self.mode == "dual" else reference.start_step)(*inputs)

    def launch(self, kernel: ModuleType, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The Triton kernel."""
        out = getattr(kernel, f"launch_{self.mode}")(*inputs)
        return (out,) if self.mode == "row" else tuple(out)

    def cost(self) -> Cost:
        """Every latent, ε and mask once; the noise is counted as 100 operations an element."""
        size, e = self.B * self.C * self.h * self.w, self.epsilon.itemsize
        moved = {"row": 12 + e, "dual": 16 + 2 * e, "start": 12 + e}[self.mode]
        work = {"row": 5, "dual": 10, "start": 106}[self.mode]
        return Cost(moved * size + 4 * size // self.C, work * size)


CASES = (
    StepCase("row", 24, 16),
    StepCase("row", 9, 7, torch.bfloat16, channels_last=False),
    StepCase("dual", 24, 16),
    StepCase("dual", 9, 7, torch.float32, channels_last=False, B=3),
    StepCase("start", 9, 7, torch.float32),
    StepCase("start", 24, 16, B=3),
)

#: SD 1.5 at 64x64 latents.
SIZES = tuple(StepCase(mode, 64, 64, B=16) for mode in ("row", "dual", "start"))
