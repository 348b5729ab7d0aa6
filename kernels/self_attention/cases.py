"""The cases of self-attention: small ones to test, SD 1.5's to time."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from ..case import Case, Cost
from .reference import self_attention

__all__ = ["CASES", "SIZES", "SelfAttentionCase"]


@dataclass(frozen=True)
class SelfAttentionCase(Case):
    """B rows, H heads of d, N queries and keys; ``joined`` has heads side by side in memory."""

    d: int
    N: int
    dtype: torch.dtype = torch.float32
    joined: bool = True
    H: int = 2
    B: int = 2
    layers: int = 1

    def __str__(self) -> str:
        """All that tells one case from another."""
        form = "joined" if self.joined else "heads"
        return f"B{self.B}-H{self.H}-N{self.N}-d{self.d}-{form}-{str(self.dtype)[6:]}"

    def inputs(self, device: str = "cpu") -> tuple[Tensor, ...]:
        """q, k and v."""
        g = torch.Generator().manual_seed(0)
        made = (torch.randn(self.B, self.N, self.H, self.d, generator=g) for _ in range(3))
        heads = (x.to(self.dtype).transpose(1, 2) for x in made)
        return tuple((x if self.joined else x.contiguous()).to(device) for x in heads)

    def reference(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The formula as printed, row by row: scores of 16 rows in float64 are 17 GB."""
        rows = zip(*(x.split(1) for x in inputs), strict=True)
        return (torch.cat([self_attention(*row) for row in rows]),)

    def library(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """PyTorch's choice of FlashAttention and cuDNN's."""
        return (F.scaled_dot_product_attention(*inputs),)

    def launch(self, kernel: ModuleType, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The Triton kernel."""
        return (kernel.launch(*inputs),)

    def cost(self) -> Cost:
        """Each tensor once; two products."""
        numbers = self.B * self.H * self.N * self.d
        return Cost(4 * self.dtype.itemsize * numbers, 4 * numbers * self.N)


_HALF, _BRAIN = torch.float16, torch.bfloat16

CASES = (
    *(SelfAttentionCase(d, 70, t) for d in (40, 80) for t in (_HALF, _BRAIN)),
    SelfAttentionCase(40, 150, joined=False, H=1),
    SelfAttentionCase(8, 33, H=3),
    SelfAttentionCase(64, 65, B=1),
    SelfAttentionCase(40, 1),
)

#: SD 1.5 at 64x64 latents, where it could win, for a batch of 16 rows.
SIZES = tuple(
    SelfAttentionCase(40 * c, side * side, t, H=8, B=16, layers=5)
    for t in (_HALF, _BRAIN)
    for c, side in ((1, 64), (2, 32))
)
