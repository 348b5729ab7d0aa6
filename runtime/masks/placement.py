"""Placement: a shape goes whole into its region, or not at all. Nothing is ever clipped to fit.

A shape [h,w] fits at a corner (y, x) of a region [H,W] if every pixel of it falls on a pixel of
the region. Corners are drawn uniformly from all that fit: a few at random first, which is enough
in most regions; if none of them does, every corner of the image is tested, exactly, run by run
of the shape against the row sums of what is forbidden (a one-dimensional integral image). That
goes strip by strip, so an image of 100 megapixels takes a few MB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from ..images.types import Mask

__all__ = ["TRIES", "find_place", "fits", "grow", "paste", "place"]

Rng = np.random.Generator
Corner = tuple[int, int]
Made = TypeVar("Made")

#: Shapes that are tried on an image before it is given up, each smaller than the last.
TRIES = 6
_SHRINK = 0.85
_RANDOM = 64
#: Pixels of the region that the exhaustive test looks at in one go.
_STRIP = 1 << 21


def fits(region: Mask, shape: Mask, corner: Corner) -> bool:
    """Whether a shape [h,w] lies whole in a region [H,W] with its first pixel at (y, x)."""
    y, x = corner
    (h, w), (height, width) = shape.shape, region.shape
    inside = 0 <= y <= height - h and 0 <= x <= width - w
    return inside and bool(region[y : y + h, x : x + w][shape].all())


def find_place(region: Mask, shape: Mask, rng: Rng, margin: int = 0) -> Corner | None:
    """A corner (y, x), uniform among all at which ``shape`` fits into ``region``; None if none.

    ``margin`` px around the shape have to be in the region too, as far as the image reaches:
    its border forbids nothing.
    """
    if margin > 0:
        region = np.pad(region, margin, constant_values=True)
        shape = grow(shape, margin)
    box = _box(region)
    if box is None:
        return None
    (top, left), view = box
    rooms = [room - size + 1 for room, size in zip(view.shape, shape.shape, strict=True)]
    if min(rooms) < 1:
        return None
    for y, x in rng.integers(rooms, size=(_RANDOM, 2)):
        if fits(view, shape, (y, x)):
            return top + int(y), left + int(x)
    found = _choose(_all_places(view, shape), rng)
    return None if found is None else (top + found[0], left + found[1])


def place(
    make: Callable[[float], tuple[Mask, Made]], region: Mask, rng: Rng, margin: int = 0
) -> tuple[Mask, Corner, Made] | None:
    """Try a few shapes until one fits: the shape, its corner, what ``make`` said of it.

    ``make`` gets the scale of each try, from 1 down, and returns a shape and anything beside it.
    None if none of the `TRIES` shapes fits anywhere.
    """
    for n in range(TRIES):
        shape, made = make(_SHRINK**n)
        corner = find_place(region, shape, rng, margin)
        if corner is not None:
            return shape, corner, made
    return None


def paste(shape: Mask, corner: Corner, size: tuple[int, int]) -> Mask:
    """A shape as the mask of an image of ``size`` (H, W), with its first pixel at (y, x)."""
    y, x = corner
    mask = np.zeros(size, bool)
    mask[y : y + shape.shape[0], x : x + shape.shape[1]] = shape
    return mask


def grow(shape: Mask, margin: int) -> Mask:
    """[h,w] -> [h+2m,w+2m]: everything within ``margin`` px of the shape."""
    padded = np.pad(shape, margin).astype(np.uint8)
    distance = cv2.distanceTransform(1 - padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(distance <= margin)


def _box(region: Mask) -> tuple[Corner, Mask] | None:
    """The corner and a view of the part of a region that is not empty."""
    (rows,), (columns,) = np.nonzero(region.any(axis=1)), np.nonzero(region.any(axis=0))
    if not len(rows):
        return None
    top, left = int(rows[0]), int(columns[0])
    return (top, left), region[top : rows[-1] + 1, left : columns[-1] + 1]


def _all_places(region: Mask, shape: Mask) -> Iterator[NDArray[np.intp]]:
    """All corners [n,2] at which the shape fits, strip by strip of the region."""
    runs = _runs(shape)
    (h, w), (height, width) = shape.shape, region.shape
    rows = max(1, _STRIP // width)
    for top in range(0, height - h + 1, rows):
        strip = region[top : min(height, top + rows + h - 1)]
        forbidden = np.zeros((len(strip), width + 1), np.int32)
        np.cumsum(~strip, axis=1, out=forbidden[:, 1:])
        y, x = np.divmod(np.arange((len(strip) - h + 1) * (width - w + 1)), width - w + 1)
        for row, start, end in runs:
            free = forbidden[y + row, x + start] == forbidden[y + row, x + end]
            y, x = y[free], x[free]
        yield np.stack([top + y, x], axis=1)


def _runs(shape: Mask) -> list[tuple[int, int, int]]:
    """The shape as runs (row, first, end), the longest first: they rule out the most."""
    edges = np.diff(np.pad(shape, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    (row, start), (_, end) = np.nonzero(edges == 1), np.nonzero(edges == -1)
    order = np.argsort(start - end, kind="stable")
    return [(int(row[i]), int(start[i]), int(end[i])) for i in order]


def _choose(strips: Iterator[NDArray[np.intp]], rng: Rng) -> Corner | None:
    """One row of all strips together, uniformly, holding one strip at a time."""
    found, total = None, 0
    for corners in strips:
        total += len(corners)
        if len(corners) and rng.integers(total) < len(corners):
            y, x = corners[rng.integers(len(corners))]
            found = int(y), int(x)
    return found
