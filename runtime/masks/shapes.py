"""Shapes of defects: masks drawn when there are none to take from real defects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ..images.types import Mask
from .pieces import largest, tight

__all__ = [
    "LINES",
    "USUAL",
    "WIDE",
    "Sizes",
    "blob",
    "draw_shape",
    "line",
    "perlin",
    "profile",
    "stroke",
]

Rng = np.random.Generator


Field = NDArray[np.float64]


Points = NDArray[np.float64]


#: Kinds that are lines: (wobble, kink) of their path. All others are spots.
LINES = {"scratch": (0.025, 0.02), "crack": (0.12, 0.55)}


@dataclass(frozen=True)
class Sizes:
    """How large shapes are drawn.

    spots   of a type, the smallest and largest radius as a share of the model's window, and how
            ragged; ``spot`` of any other type
    length  of a line, as a share of the window
    width   of a line, in px
    """

    spots: Mapping[str, tuple[float, float, float]]
    spot: tuple[float, float, float]
    length: tuple[float, float]
    width: tuple[float, float]


#: What the bundled engine learned to paint.
USUAL = Sizes(
    spots={
        "dent": (0.14, 0.22, 0.06),
        "hole": (0.07, 0.13, 0.14),
        "particle": (0.07, 0.13, 0.22),
        "stain": (0.14, 0.26, 0.30),
    },
    spot=(0.09, 0.17, 0.15),
    length=(0.4, 0.85),
    width=(1.8, 3.4),
)
#: What real defects come in: for training.
WIDE = Sizes(
    spots={
        "dent": (0.07, 0.25, 0.08),
        "hole": (0.03, 0.16, 0.18),
        "particle": (0.035, 0.15, 0.22),
        "stain": (0.06, 0.30, 0.30),
    },
    spot=(0.03, 0.25, 0.15),
    length=(0.2, 0.85),
    width=(1.5, 4.2),
)


#: Side branches of a crack, at most.
_BRANCHES = 2


def line(rng: Rng, centre: Points, length: float, wobble: float, kink: float) -> Points:
    """A walk that keeps its direction: points [n,2] (y, x), 3 px apart, about ``length`` px long.

    ``wobble`` (radians a step) bends the path slowly, ``kink`` makes it jagged.
    """
    angle = rng.uniform(0, 2 * np.pi)
    points = [centre - 0.5 * length * np.array([np.sin(angle), np.cos(angle)])]
    for _ in range(max(1, int(length // 3))):
        angle += rng.normal(0, wobble)
        turn = angle + rng.normal(0, kink)
        points.append(points[-1] + 3 * np.array([np.sin(turn), np.cos(turn)]))
    return np.array(points)


def stroke(points: Points, shape: tuple[int, int], width: float) -> Field:
    """Profile [H,W] of a line ``width`` px wide: 1 along its middle, falling to 0."""
    far = np.full(shape, 255, np.uint8)
    fixed = np.round(points[:, None, ::-1] * 16).astype(np.int32)
    cv2.polylines(far, [fixed], False, (0,), 1, cv2.LINE_8, 4)
    distance = cv2.distanceTransform(far, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.clip(1 - np.asarray(distance, np.float64) / (width / 2 + 0.5), 0, 1)


def blob(rng: Rng, centre: Points, shape: tuple[int, int], radius: float, rough: float) -> Field:
    """Depth [H,W] in px of a rounded shape: positive inside, ``radius`` in the middle."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    y, x = y - centre[0], x - centre[1]
    angle = np.arctan2(y, x)
    edge = np.full(shape, radius)
    for k in range(2, 7):
        wave = np.cos(k * angle + rng.uniform(0, 2 * np.pi))
        edge += radius * rough * rng.normal() / k * wave
    away = np.hypot(y, x / rng.uniform(0.7, 1.0))
    depth: Field = radius * (1 - away / np.maximum(edge, 0.1 * radius))
    return depth


def profile(
    defect_type: str,
    shape: tuple[int, int],
    centre: Points,
    window: int,
    rng: Rng,
    sizes: Sizes = USUAL,
) -> Field:
    """The form of a defect around ``centre`` (y, x): [H,W], 0 outside.

    A line is 1 along its middle and falls to its sides, a spot is its depth in px. ``window`` is
    the side that the model sees, in px; it sets the scale. Small spots are as frequent as large.
    """
    if defect_type not in LINES:
        low, high, rough = sizes.spots.get(defect_type, sizes.spot)
        radius = np.exp(rng.uniform(np.log(low), np.log(high))) * window
        return np.maximum(blob(rng, centre, shape, radius, rough), 0)
    path = line(rng, centre, rng.uniform(*sizes.length) * window, *LINES[defect_type])
    width = rng.uniform(*sizes.width)
    form = stroke(path, shape, width)
    for _ in range(rng.integers(_BRANCHES + 1) if defect_type == "crack" else 0):
        start, length = path[rng.integers(len(path))], rng.uniform(0.1, 0.3) * window
        branch = line(rng, start, 2 * length, *LINES[defect_type])
        form = np.maximum(form, stroke(branch[len(branch) // 2 :], shape, 0.7 * width))
    return form


def draw_shape(defect_type: str, window: int, rng: Rng) -> Mask:
    """A shape that suits a type of defect: the tight cut-out [h,w] of a mask, one piece.

    ``window`` is the side that the model sees, in px; it sets the scale, and no shape is larger.
    Scratches and cracks are lines; holes, particles, dents and stains are spots of their usual
    sizes, and so is any other defect type. A px around the form itself belongs to the mask, since a
    slope is lit differently up to its foot. Two are forms rather than defects: a blob is
    several rounded shapes grown together, perlin a patch of Perlin's noise.
    """
    if defect_type in _FORMS:
        return tight(_FORMS[defect_type](window, rng))
    centre = np.array([window / 2, window / 2])
    form = profile(defect_type, (window, window), centre, window, rng)
    if not form.any():  # a spot that lies between four px
        form[window // 2, window // 2] = 1
    mask = cv2.dilate((form > 0).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    return tight(largest(mask))


def _lobes(window: int, rng: Rng) -> Mask:
    """Three to five rounded shapes that overlap the first, [window,window]."""
    centre, radius = np.array([window / 2, window / 2]), rng.uniform(*USUAL.spot[:2]) * window
    depth = blob(rng, centre, (window, window), radius, 0.15)
    for _ in range(rng.integers(2, 5)):
        other = rng.uniform(0.5, 0.9) * radius
        away = rng.normal(size=2)
        away *= rng.uniform(0.5, 0.9) * radius / np.linalg.norm(away)
        depth = np.maximum(depth, blob(rng, centre + away, (window, window), other, 0.15))
    return largest(depth > 0)


def _patch(window: int, rng: Rng) -> Mask:
    """A patch of Perlin's noise, ragged and maybe with holes, [window,window]."""
    cell = max(2.0, rng.uniform(0.06, 0.15) * window)
    noise = sum(perlin(rng, (window, window), cell / 2**k) / 2**k for k in range(3))
    radius = rng.uniform(1.0, 1.6) * rng.uniform(*USUAL.spot[:2]) * window
    centre = np.array([window / 2, window / 2])
    depth = blob(rng, centre, (window, window), radius, 0.15) / radius
    return largest((depth > 0) & (depth + noise > 0.2) | (depth >= depth.max()))


_FORMS = {"blob": _lobes, "perlin": _patch}


def perlin(rng: Rng, shape: tuple[int, int], cell: float) -> Field:
    """Perlin's gradient noise [H,W], about -0.7 to 0.7, one random gradient every ``cell`` px.

    Perlin, "Improving noise", SIGGRAPH 2002: the gradients' ramps, blended by 6t⁵ - 15t⁴ + 10t³.
    """
    y, x = (np.arange(side) / cell for side in shape)
    (row, column), ty, tx = (y.astype(int), x.astype(int)), y % 1, x % 1
    angle = rng.uniform(0, 2 * np.pi, (row[-1] + 2, column[-1] + 2))
    ramps = [
        np.sin(angle)[row + dy][:, column + dx] * (ty - dy)[:, None]
        + np.cos(angle)[row + dy][:, column + dx] * (tx - dx)
        for dy in (0, 1)
        for dx in (0, 1)
    ]
    wy, wx = (t**3 * (t * (6 * t - 15) + 10) for t in (ty[:, None], tx))
    upper = ramps[0] + wx * (ramps[1] - ramps[0])
    lower = ramps[2] + wx * (ramps[3] - ramps[2])
    noise: Field = upper + wy * (lower - upper)
    return noise
