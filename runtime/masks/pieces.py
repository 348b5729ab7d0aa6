"""The pieces of a mask."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from ..images.types import Mask
from ..images.window import bounds

__all__ = ["Piece", "largest", "pieces", "tight"]


class Piece(NamedTuple):
    """A part of a mask: tight [h,w], and the corner (y, x) at which it lies."""

    shape: Mask
    corner: tuple[int, int]


def pieces(mask: Mask, gap: int) -> list[Piece]:
    """The parts of a mask [H,W] that lie far apart, from the top left on; none if it is empty.

    Two pieces are at least ``gap`` px apart in a row or a column; what is closer stays together,
    and so may what is up to twice as far. Cells of ``gap`` px are joined where they touch, so the
    work does not grow with the image.
    """
    rows, columns = (-(-side // gap) for side in mask.shape)
    cells = np.zeros((rows * gap, columns * gap), bool)
    cells[: mask.shape[0], : mask.shape[1]] = mask
    joined = np.asarray(cells.reshape(rows, gap, columns, gap).any(axis=(1, 3)), np.uint8)
    count, labels = cv2.connectedComponents(joined, connectivity=8)
    return [_piece(mask, labels == label, gap) for label in range(1, count)]


def _piece(mask: Mask, cells: Mask, gap: int) -> Piece:
    ys, xs = cells.nonzero()
    top, left = int(ys.min()) * gap, int(xs.min()) * gap
    cells = tight(cells).repeat(gap, axis=0).repeat(gap, axis=1)
    view = mask[top : top + cells.shape[0], left : left + cells.shape[1]]
    part = view & cells[: view.shape[0], : view.shape[1]]
    y, x = int(part.any(axis=1).argmax()), int(part.any(axis=0).argmax())
    return Piece(tight(part), (top + y, left + x))


def largest(mask: Mask, most: int = 1) -> Mask:
    """The largest piece of a mask, or so many of them; px that touch at a corner hang together."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    order = 1 + np.argsort(-stats[1:, cv2.CC_STAT_AREA], kind="stable")
    return np.asarray(np.isin(labels, order[:most]))


def tight(mask: Mask) -> Mask:
    """The part of a mask that is not empty: [H,W] -> [h,w], a copy."""
    return mask[bounds(mask)].copy()
