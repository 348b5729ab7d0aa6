"""Shapes of defects: masks drawn when there are none to take from real defects."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from .images import Mask

__all__ = ["LINES", "blob", "draw_mask", "draw_shape", "line", "stroke", "tight"]

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


def draw_shape(kind: str, window: int, rng: Rng) -> Mask:
    """A shape that suits a kind of defect: the tight cut-out [h,w] of a mask, one piece.

    ``window`` is the side that the model sees, in px; it sets the scale, and no shape is larger.
    Scratches and cracks are lines; holes, particles, dents and stains are spots of their usual
    sizes, and so is any other kind.
    """
    local = (window, window)
    centre = np.array([window / 2, window / 2])
    if kind in LINES:
        path = line(rng, centre, rng.uniform(*_LINE) * window * 0.8, *LINES[kind])
        mask = stroke(path, local, rng.uniform(1.5, 3.0)) > 0
    else:
        radius = rng.uniform(*_SPOTS.get(kind, _SPOT)) * window
        mask = blob(rng, centre, local, radius, 0.15) > 0
    return tight(mask)


def tight(mask: Mask) -> Mask:
    """The part of a mask that is not empty: [H,W] -> [h,w], a copy."""
    (rows,), (columns,) = mask.any(axis=1).nonzero(), mask.any(axis=0).nonzero()
    return mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].copy()


def draw_mask(kind: str, shape: tuple[int, int], window: int, rng: Rng) -> Mask:
    """A mask [H,W] that suits a kind of defect (see `draw_shape`), wholly inside the picture."""
    cut = draw_shape(kind, min(window, *shape), rng)
    y, x = (int(rng.integers(room - size + 1)) for room, size in zip(shape, cut.shape, strict=True))
    out = np.zeros(shape, bool)
    out[y : y + cut.shape[0], x : x + cut.shape[1]] = cut
    return out
