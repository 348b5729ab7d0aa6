"""What libraries do in two ways, or in one that a kernel might better; no kernel of ours.

Each case is one that the roofline has (`benchmarks/roofline.py`), at Stable Diffusion 1.5's sizes,
16 rows, 16 bits. ``gain_us`` is what the second way, or the floor, saves of an evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels import Clock, compiled

_ROWS = 16


@dataclass(frozen=True)
class Comparison:
    """One operator at one size.

    layers  of the U-Net that have it
    inputs  on a device
    usual   what runs now, compiled unless ``eager``
    other   what it is compared with; without it, ``moved`` bytes at the card's bandwidth
    options of Inductor for ``other``
    """

    operator: str
    size: str
    layers: int
    inputs: Callable[[str], tuple[Tensor, ...]]
    usual: Callable[..., Tensor]
    other: Callable[..., Tensor] | None = None
    moved: int = 0
    eager: bool = False
    options: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        """Names it."""
        return f"{self.operator} {self.size}"

    def times(self, clock: Clock, bandwidth: float) -> dict[str, Any]:
        """Microseconds of both."""
        inputs = self.inputs(clock.device)
        found = {"operator": self.operator, "usual_us": self._time(self.usual, inputs, clock)}
        if self.other is None:
            found["floor_us"] = 1e6 * self.moved / bandwidth
        else:
            found["other_us"] = self._time(self.other, inputs, clock, **dict(self.options))
        best = found.get("other_us", found.get("floor_us"))
        return found | {"gain_us": self.layers * (found["usual_us"] - best)}

    def _time(
        self, function: Callable[..., Tensor], inputs: tuple[Tensor, ...], clock: Clock,
        **options: Any,
    ) -> float:  # fmt: skip
        if self.eager:
            return 1e6 * clock.measure(lambda: function(*inputs))[0]
        found = compiled(function, inputs, clock, **options)
        if "not_compiled" in found:
            raise RuntimeError(found["not_compiled"])
        return float(found["compiled_us"])


def comparisons(rows: int = _ROWS, toy: bool = False) -> Iterator[Comparison]:
    """Most valuable first; a small one of each in a rehearsal."""
    dtype = torch.float32 if toy else torch.float16

    def random(*shape: int) -> Callable[[str], Tensor]:
        return lambda device: torch.randn(*shape, device=device, dtype=dtype)

    for side, c, layers in ((4, 16, 1),) if toy else ((64, 320, 5), (32, 640, 5)):
        yield _residual(rows, side, c, layers, random)
    for side, c, layers in ((4, 32, 1),) if toy else ((64, 320, 12), (64, 640, 2), (32, 640, 12)):
        yield _group_norm(rows, side, c, layers, random, dtype.itemsize)
    for side, c, layers in ((4, 16, 1),) if toy else ((64, 320, 7), (32, 640, 6), (16, 1280, 6)):
        yield _convolution(rows, side, c, layers, random)


Random = Callable[..., Callable[[str], Tensor]]


def _residual(rows: int, side: int, c: int, layers: int, random: Random) -> Comparison:
    """Projection, residual and layer norm; the compiler's own products may add in their epilogue.

    A transformer block has two of them, and two more projections with a residual.
    """

    def block(x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor) -> Any:
        after = F.linear(x, weight, bias) + residual
        return after, F.layer_norm(after, (c,))

    shapes = (random(rows, side * side, c), random(c, c), random(c), random(rows, side * side, c))
    options = (("max_autotune_gemm", True), ("max_autotune_gemm_backends", "ATEN,TRITON"))
    return Comparison(
        "residuals added in the products before", f"{side}x{side}x{c}", 4 * layers,
        lambda device: tuple(x(device) for x in shapes), block, block, options=options,
    )  # fmt: skip


def _group_norm(rows: int, side: int, c: int, layers: int, random: Random, size: int) -> Comparison:
    """Beside a kernel that reads and writes each number once."""

    def norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.silu(F.group_norm(x, 32, weight, bias))

    def inputs(device: str) -> tuple[Tensor, ...]:
        x = random(rows, c, side, side)(device)
        return x.to(memory_format=torch.channels_last), random(c)(device), random(c)(device)

    moved = 2 * size * rows * c * side * side
    return Comparison("group norm in one pass", f"{side}x{side}x{c}", layers, inputs, norm,
                      moved=moved)  # fmt: skip


def _convolution(rows: int, side: int, c: int, layers: int, random: Random) -> Comparison:
    """3x3 as the U-Net's tensors would lie without channels last, and with; cuDNN's choice."""

    def inputs(device: str) -> tuple[Tensor, ...]:
        x, weight = random(rows, c, side, side)(device), random(c, c, 3, 3)(device)
        last = (y.to(memory_format=torch.channels_last) for y in (x, weight))
        return x, weight, *last

    return Comparison(
        "convolutions channels-last", f"{side}x{side}x{c}", layers, inputs,
        lambda x, weight, *_: F.conv2d(x, weight, padding=1),
        lambda *given: F.conv2d(*given[2:], padding=1), eager=True,
    )  # fmt: skip
