"""The cases of masked inside-outside cross-attention: small ones to test, SD 1.5's to time."""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt
from types import ModuleType
from typing import Literal

import torch
from torch import Tensor

from ..case import Case, Cost
from .reference import attention_map, concatenated_softmax, table_attention, two_softmaxes

__all__ = ["CASES", "SIZES", "AttentionCase"]


@dataclass(frozen=True)
class AttentionCase(Case):
    """B rows, H heads of d, N queries and P prompts of L tokens.

    mask    binary (random per query), spot (a disc, so most tiles lie wholly outside), inside,
            outside or soft
    layout  joined: heads side by side, as a projection leaves them; heads: [B,H,N,d] in memory;
            scattered: no axis is contiguous
    """

    d: int
    N: int
    dtype: torch.dtype = torch.float32
    mask: Literal["binary", "spot", "inside", "outside", "soft"] = "binary"
    layout: Literal["joined", "heads", "scattered"] = "joined"
    L: int = 7
    H: int = 2
    B: int = 2
    P: int = 3
    map: bool = False
    layers: int = 1

    def __str__(self) -> str:
        """All that tells one case from another."""
        name = f"B{self.B}-H{self.H}-N{self.N}-d{self.d}-L{self.L}-{self.mask}-{self.layout}"
        return f"{name}-{str(self.dtype)[6:]}{'-map' * self.map}"

    def inputs(self, device: str = "cpu") -> tuple[Tensor, ...]:
        """q, k, v, inside, outside, mask and the content weights."""
        g = torch.Generator().manual_seed(0)
        q = self._heads(torch.randn(self.B, self.N, self.H, self.d, generator=g))
        k, v = (
            self._heads(torch.randn(self.P, self.L, self.H, self.d, generator=g)) for _ in range(2)
        )
        inside = torch.arange(self.B) % self.P
        content = (torch.rand(self.P, self.L, generator=g) < 0.5).float()
        content[:, 0] = 1
        tensors = (q, k, v, inside, (inside + 1) % self.P, self._mask(g), content)
        return tuple(x.to(device) for x in tensors)

    def _heads(self, x: Tensor) -> Tensor:
        """[B,N,H,d] -> [B,H,N,d] in the case's precision and layout."""
        x = x.to(self.dtype).transpose(1, 2)
        if self.layout == "heads":
            return x.contiguous()
        if self.layout == "scattered":
            return x.new_zeros(*x.shape, 2).copy_(x[..., None].expand(*x.shape, 2))[..., 0]
        return x

    def _mask(self, g: torch.Generator) -> Tensor:
        if self.mask == "spot":
            side = isqrt(self.N)
            y, x = torch.arange(self.N) // side, torch.arange(self.N) % side
            disc = (y - side / 2) ** 2 + (x - side / 2) ** 2 < (side / 8) ** 2
            return disc.float().expand(self.B, -1).contiguous()
        random = torch.rand(self.B, self.N, generator=g)
        if self.mask == "binary":
            return (random < 0.4).float()
        return {"inside": torch.ones_like, "outside": torch.zeros_like, "soft": torch.clone}[
            self.mask
        ](random)

    def reference(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Eqs. 10 and 11 as printed, and the map."""
        q, k, v, inside, outside, mask, _ = inputs
        if self.map:
            return table_attention(*inputs)
        return (two_softmaxes(q, k[inside], v[inside], k[outside], v[outside], mask),)

    def library(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """One attention over both prompts, a mask for each pair; for a binary mask."""
        q, k, v, inside, outside, mask, content = inputs
        out = concatenated_softmax(q, k[inside], v[inside], k[outside], v[outside], mask)
        return (out, attention_map(q, k[inside], content[inside])) if self.map else (out,)

    def launch(self, kernel: ModuleType, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The Triton kernel."""
        *operands, content = inputs
        out, share = kernel.launch(*operands, content if self.map else None)
        return (out, share) if self.map else (out,)

    def cost(self) -> Cost:
        """Queries in, outputs out, each row's prompts once; one prompt a query."""
        size = self.dtype.itemsize
        rows, table = self.B * self.H * self.N * self.d, self.P * self.H * self.L * self.d
        maps = 4 * self.B * self.N * self.map
        return Cost(2 * size * (rows + table) + 4 * self.B * self.N + maps, 4 * rows * self.L)


_HALF, _BRAIN, _FULL = torch.float16, torch.bfloat16, torch.float32

CASES = (
    *(AttentionCase(d, 50, t, "soft", H=1) for d in (64, 160) for t in (_HALF, _BRAIN)),
    *(AttentionCase(d, 37, _FULL, "soft", L=19, H=1, map=True) for d in (8, 40, 64, 80, 160)),
    *(AttentionCase(40, 65, _FULL, side, L=16) for side in ("inside", "outside")),
    AttentionCase(40, 144, _FULL, "spot", L=33, B=1, map=True),
    AttentionCase(40, 33, _FULL, layout="heads", L=1),
    AttentionCase(80, 33, _FULL, layout="scattered"),
    AttentionCase(40, 1, _FULL, L=150),
    *(AttentionCase(d, 70, t, L=77, map=True) for d in (40, 80) for t in (_HALF, _BRAIN)),
)

#: SD 1.5 at 64x64 latents, 77 tokens: the levels that attend, for a batch of 16 rows.
SIZES = tuple(
    AttentionCase(
        40 * c, side * side, t, "spot", L=77, H=8, B=16, P=4, map=side <= 16, layers=layers
    )
    for t in (_HALF, _BRAIN)
    for c, side, layers in ((1, 64, 5), (2, 32, 5), (4, 16, 5), (4, 8, 1))
)
