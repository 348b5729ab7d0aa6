"""One closed polygon around a mask, whatever its holes and pieces."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from ..images.types import Mask

__all__ = ["Points", "along_edges", "outline"]

Points = NDArray[np.int64]


def outline(mask: Mask) -> Points:
    """One closed polygon [n,2] (x, y) through the border pixels of a mask that is not empty.

    Filled with its border it is the mask, to the pixel if that is in one piece. A border is one
    loop per piece and per hole; the loops are joined by cuts of no width. From a hole a cut goes
    straight up, through the mask, to the next border; further pieces are joined by the shortest
    cuts there are, so that these add lines of one pixel.
    """
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
    mask = mask[top : top + height, left : left + width]
    found, tree = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    loops = [np.roll(loop[:, 0], -loop[:, 0, 1].argmin(), axis=0) for loop in found]
    is_hole = tree[0, :, 3] >= 0
    order = np.lexsort(([loop[0, 1] for loop in loops], is_hole))  # so cuts lead to earlier loops
    points = np.concatenate([loops[n] for n in order]).astype(np.int64)
    ends = np.cumsum([len(loops[n]) for n in order])
    starts = np.append(0, ends[:-1])
    after = np.arange(1, len(points) + 1)
    after[ends - 1] = starts
    at = np.full(mask.shape, len(points))
    np.minimum.at(at, tuple(points.T[::-1]), np.arange(len(points)))  # where loops meet, the first
    cuts = [_up(points, int(hole), at) for hole in starts[(~is_hole).sum() :]]
    path = np.array(_walk(points.tolist(), after.tolist(), [*cuts, *_across(mask, at)]))
    before, behind = path - np.roll(path, 1, axis=0), np.roll(path, -1, axis=0) - path
    turns = (before != behind).any(axis=1)  # between two equal steps a point draws nothing
    return np.asarray((path[turns] if turns.any() else path[:1]) + (left, top), np.int64)


def along_edges(mask: Mask) -> Points:
    """One closed polygon [n,2] (x, y) along the edges of the px of a mask in one piece.

    Whoever fills it by the middles of px gets the mask back, holes too. It is the outline through
    the border of the mask at twice the size, where every edge of a px has px of its own.
    """
    points = (outline(mask.repeat(2, axis=0).repeat(2, axis=1)) + 1) // 2
    points = points[(points != np.roll(points, 1, axis=0)).any(axis=1)]
    before, behind = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    return np.asarray(points[(np.sign(before) != np.sign(behind)).any(axis=1)], np.int64)


def _up(points: Points, hole: int, at: Points) -> tuple[int, int]:
    """From the border above a hole to the hole's top, its first point: indices of both."""
    x, y = points[hole]
    while at[y, x] >= hole:
        y -= 1
    return int(at[y, x]), hole


def _across(mask: Mask, at: Points) -> Iterator[tuple[int, int]]:
    """Between pieces, the shortest cuts first, until all hang together (Kruskal's tree).

    Where two pixels side by side are nearest to different pieces, a cut may run.
    """
    count, piece = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    _, label = cv2.distanceTransformWithLabels(
        1 - mask.astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    nearest = np.zeros(label.max() + 1, np.int64)
    nearest[label[mask]] = np.flatnonzero(mask)
    near, piece = nearest[label], piece.ravel()
    sides = [(near[:, :-1], near[:, 1:]), (near[:-1], near[1:])]
    ends = np.hstack([[a[apart], b[apart]] for a, b in sides for apart in [piece[a] != piece[b]]])
    (y1, y2), (x1, x2) = np.divmod(ends, mask.shape[1])
    ends = ends[:, np.argsort((y1 - y2) ** 2 + (x1 - x2) ** 2, kind="stable")]
    group = np.arange(count)
    _, firsts = np.unique(np.sort(piece[ends], axis=0), axis=1, return_index=True)
    for a, b in ends[:, np.sort(firsts)].T:
        p, q = group[piece[[a, b]]]
        if p != q:
            group[group == q] = p
            yield int(at.flat[a]), int(at.flat[b])


def _walk(
    points: list[list[int]], after: list[int], cuts: list[tuple[int, int]]
) -> list[list[int]]:
    """All loops' points as one loop, given each one's successor and the cuts between them."""
    for a, b in cuts:  # there by a copy of b, and back from b by a copy of a
        after += [after[b], after[a]]
        after[a], after[b] = len(points), len(points) + 1
        points += [points[b], points[a]]
    path = [0]
    while after[path[-1]]:
        path.append(after[path[-1]])
    return [points[n] for n in path]
