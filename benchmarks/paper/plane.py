"""A plane through a module's weights: its directions, and the shape of a loss on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Floats = NDArray[np.float64]
Direction = Mapping[str, Tensor]

#: A loss this many times that of the centre still counts as low.
LOW = 1.1


@dataclass(frozen=True)
class Shape:
    """What a surface looks like around its centre, where the loss is ``centre``.

    curvature  eigenvalues of the plane's Hessian, the larger first, by central differences
    relative   the same over ``centre``: losses on other scales compare
    sharpness  100 (max L - L_0) / (1 + L_0) over the plane (Keskar et al. 2017, Eq. 3)
    low        share of the plane whose loss is below 1.1 L_0
    least      x, y of the plane's least loss, and that loss over ``centre``
    """

    centre: float
    curvature: tuple[float, float]
    relative: tuple[float, float]
    sharpness: float
    low: float
    least: tuple[float, float, float]


def direction(module: nn.Module, generator: torch.Generator) -> dict[str, Tensor]:
    """A random direction whose filters have the norms of the module's (Li et al. 2018, section 4).

    A filter is what makes one output channel or unit. Biases and the scales of norms, which are no
    filters, stay as they are: zeros.
    """
    found = {}
    for name, weights in module.named_parameters():
        if weights.dim() < 2:
            found[name] = torch.zeros_like(weights)
            continue
        random = torch.randn(weights.shape, generator=generator).to(weights)
        length = [w.detach().flatten(1).norm(dim=1) for w in (weights, random)]
        ratio = length[0] / length[1].clamp(min=1e-12)
        found[name] = random * ratio.view(-1, *(1,) * (weights.dim() - 1))
    return found


@contextmanager
def moving(
    module: nn.Module, directions: Sequence[Direction]
) -> Iterator[Callable[[Sequence[float]], None]]:
    """A function that puts the weights so far along each direction; they come back at the end."""
    own = {name: weights.detach().clone() for name, weights in module.named_parameters()}

    @torch.no_grad()
    def move(far: Sequence[float]) -> None:
        for name, weights in module.named_parameters():
            weights.copy_(own[name])
            for by, along in zip(far, directions, strict=True):
                weights.add_(along[name], alpha=by)

    try:
        yield move
    finally:
        move([0.0] * len(directions))


def shape(surface: Floats, at: Floats) -> Shape:
    """The figures of a loss [N,N] by y and x, each at the N places ``at``, 0 in the middle."""
    c, h = len(at) // 2, at[1] - at[0]
    centre = float(surface[c, c])
    near = surface[c - 1 : c + 2, c - 1 : c + 2]
    xx, yy = (float(line[0] - 2 * line[1] + line[2]) / h**2 for line in (near[1], near[:, 1]))
    xy = float(near[2, 2] - near[2, 0] - near[0, 2] + near[0, 0]) / (4 * h**2)
    small, large = np.linalg.eigvalsh([[xx, xy], [xy, yy]])
    y, x = np.unravel_index(int(surface.argmin()), surface.shape)
    return Shape(
        centre=centre,
        curvature=(float(large), float(small)),
        relative=(float(large / centre), float(small / centre)),
        sharpness=float(100 * (surface.max() - centre) / (1 + centre)),
        low=float((surface <= LOW * centre).mean()),
        least=(float(at[x]), float(at[y]), float(surface[y, x] / centre)),
    )


def told(found: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The figures of a `Shape`, as landscape.json has it, one by one."""
    yield "L_0", found["centre"]
    for name, key in {"curvature": "curvature", "curvature over L_0": "relative"}.items():
        for place, value in zip(("larger", "smaller"), found[key], strict=True):
            yield f"{name}, {place}", value
    yield "sharpness", found["sharpness"]
    yield "share below 1.1 L_0", found["low"]
    yield from zip(("least at x", "least at y", "least over L_0"), found["least"], strict=True)
