"""Shapes of defects: masks drawn when there are none to take from real defects."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from .images import Mask

__all__ = ["LINES", "blob", "draw_mask", "line", "stroke"]

Rng = np.random.Generator
Field = NDArray[np.float64]
Points = NDArray[np.float64]

#: Kinds that are lines: (wobble, kink) of their path. All others are spots.
LINES = {"scratch": (0.04, 0.03), "crack": (0.15, 0.5)}
#: Kinds of spots: smallest and largest radius as a share of the model's window.
_SPOTS = {
    "dent": (0.10, 0.20),
    "hole": (0.05, 0.12),
    "particle": (0.05, 0.11),
    "stain": (0.13, 0.25),
}
_SPOT = (0.08, 0.16)
_LINE = (0.4, 0.85)


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
    """Depth [H,W] in px of a rounded shape: positive inside, growing towards the middle."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    y, x = y - centre[0], x - centre[1]
    angle = np.arctan2(y, x)
    edge = np.full(shape, radius)
    for k in range(2, 7):
        wave = np.cos(k * angle + rng.uniform(0, 2 * np.pi))
        edge += radius * rough * rng.normal() / k * wave
    depth: Field = edge - np.hypot(y, x / rng.uniform(0.7, 1.0))
    return depth


def draw_mask(kind: str, shape: tuple[int, int], window: int, rng: Rng) -> Mask:
    """A mask [H,W] that suits a kind of defect, wholly inside the picture.

    ``window`` is the side that the model sees, in px; it sets the scale. Scratches and cracks
    are lines; holes, particles, dents and stains are spots of their usual sizes, and so is any
    other kind.
    """
    side = min(window, *shape)
    local = (side, side)
    centre = np.array([side / 2, side / 2])
    if kind in LINES:
        path = line(rng, centre, rng.uniform(*_LINE) * side * 0.8, *LINES[kind])
        mask = stroke(path, local, rng.uniform(1.5, 3.0)) > 0
    else:
        radius = rng.uniform(*_SPOTS.get(kind, _SPOT)) * side
        mask = blob(rng, centre, local, radius, 0.15) > 0
    ys, xs = np.nonzero(mask)
    cut = mask[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
    y, x = (int(rng.integers(room - size + 1)) for room, size in zip(shape, cut.shape, strict=True))
    out = np.zeros(shape, bool)
    out[y : y + cut.shape[0], x : x + cut.shape[1]] = cut
    return out
