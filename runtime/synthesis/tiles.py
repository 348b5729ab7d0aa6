"""An instance in the tiles that paint it: each fits the window that the model sees.

An instance that fits with context is one tile at the resolution that the model learned, and so is
one of up to twice that size, scaled, unless the engine enlarges what is fine; an engine that sees
images whole paints any in one tile. A larger one, a
scratch of 3,000 px say, is cut into pieces, and each piece is painted on a background that shows
the ones before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ..images.types import Mask
from ..images.window import Window, bounds, place_window

__all__ = ["Tile", "cut"]


_Box = tuple[slice, slice]


@dataclass(frozen=True)
class Tile:
    """A square of the image, and the part of the mask in it that is painted at once.

    mask    [side,side], mirrored beyond the image's border like the image
    """

    window: Window
    mask: Mask


def cut(mask: Mask, side: int, context: int, scale: int = 2) -> Iterator[Tile]:
    """The tiles of an instance [H,W] with at least one pixel, in the order of painting.

    side is the model's window, context the px wanted around each tile. What needs a window of up to
    ``scale`` times the model's is scaled; a larger instance is cut across its longer side into
    equal parts, and each part again until it fits; parts go from the top and the left. Along most
    lines each tile continues the one before; where a line rises to the right, some are painted
    first and joined by the next.
    """
    box = _bounds(mask, (slice(None), slice(None)))
    boxes: Iterator[_Box] = iter([box])
    if max(_size(box)) + 2 * context > scale * side:
        boxes = _split(mask, box, max(side - 2 * context, side // 2))
    for part in boxes:
        piece = np.zeros_like(mask)  # costs nothing where it stays 0
        piece[part] = mask[part]
        window = place_window(piece, side, context)
        yield Tile(window, window.crop(piece).copy())


def _bounds(mask: Mask, box: _Box) -> _Box:
    """The smallest box around what is set within a box."""
    y, x = bounds(mask[box])
    top, left = box[0].start or 0, box[1].start or 0
    return slice(top + y.start, top + y.stop), slice(left + x.start, left + x.stop)


def _split(mask: Mask, box: _Box, limit: int) -> Iterator[_Box]:
    """Boxes of at most ``limit`` px around parts of a mask."""
    size = _size(box)
    if max(size) <= limit:
        yield box
        return
    axis = size.index(max(size))
    count = -(-size[axis] // limit)
    edges = [box[axis].start + size[axis] * i // count for i in range(count + 1)]
    for start, end in pairwise(edges):
        part = (slice(start, end), box[1]) if axis == 0 else (box[0], slice(start, end))
        if mask[part].any():
            yield from _split(mask, _bounds(mask, part), limit)


def _size(box: _Box) -> tuple[int, int]:
    return box[0].stop - box[0].start, box[1].stop - box[1].start
