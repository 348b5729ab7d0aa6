"""One closed polygon around a mask, whatever its holes and pieces."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from ..images.types import Mask

__all__ = ["Points", "outline"]

Points = NDArray[np.int64]
#: (loop, place in it) of both ends.
_Cut = tuple[int, int, int, int]
#: px over which pieces are joined by their shortest cuts.
_REACH = 12


def outline(mask: Mask) -> Points:
    """One closed polygon [n,2] (x, y) through the border pixels of a mask that is not empty.

    Filled with its border it is the mask, to the pixel if that is in one piece. A border is one
    loop per piece and per hole; the loops are joined by cuts of no width. From a hole a cut goes
    straight up, through the mask, to the next border; further pieces are joined by the shortest
    cuts there are, so that these add lines of one pixel. Takes time in proportion to the border.
    """
    ys, xs = np.nonzero(mask)
    corner = np.array([xs.min(), ys.min()])
    mask = mask[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
    loops, outer = _loops(mask)
    owner, place = _owners(loops, mask.shape)
    cuts = [*_up(loops, outer, owner, place), *_across(mask, loops, owner, place)]
    path = _without_straights(np.concatenate(list(_walk(loops, cuts))))
    return np.asarray(path + corner, np.int64)


def _loops(mask: Mask) -> tuple[list[Points], int]:
    """Borders as points (x, y): those of the pieces, and from how many on those of holes.

    Holes come by their tops, so that what lies above one comes before it.
    """
    found, tree = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    loops = [loop[:, 0].astype(np.int64) for loop in found]
    inner = tree[0, :, 3] >= 0
    pieces = [loop for loop, is_hole in zip(loops, inner, strict=True) if not is_hole]
    holes = [loop for loop, is_hole in zip(loops, inner, strict=True) if is_hole]
    return pieces + sorted(holes, key=lambda loop: int(loop[:, 1].min())), len(pieces)


def _owners(loops: Sequence[Points], shape: tuple[int, ...]) -> tuple[Points, Points]:
    """The first loop through every border pixel [H,W], -1 elsewhere, and its place in the loop."""
    owner, place = np.full(shape, -1), np.zeros(shape, np.int64)
    for n, loop in enumerate(loops):
        x, y = loop.T
        new = np.flatnonzero(owner[y, x] < 0)
        owner[y[new], x[new]], place[y[new], x[new]] = n, new
    return owner, place


def _up(loops: Sequence[Points], outer: int, owner: Points, place: Points) -> Iterator[_Cut]:
    """From the top of every hole to the border above it."""
    for n, loop in enumerate(loops[outer:], outer):
        k = int(loop[:, 1].argmin())
        x, y = loop[k]
        while owner[y, x] in (-1, n):
            y -= 1
        yield int(owner[y, x]), int(place[y, x]), n, k


def _across(mask: Mask, loops: Sequence[Points], owner: Points, place: Points) -> Iterator[_Cut]:
    """Between pieces, each joined to all others directly or by way of some; the shortest first."""
    count, pieces = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    group = np.arange(count)
    x, y = np.unique(np.concatenate(loops), axis=0).T
    for dx, dy in _offsets():
        if (group[1:] == group[1]).all():
            return
        x1, y1 = x + dx, y + dy
        inside = (x1 >= 0) & (x1 < mask.shape[1]) & (y1 < mask.shape[0])
        a, b = np.stack([y, x])[:, inside], np.stack([y1, x1])[:, inside]
        apart = mask[tuple(b)] & (group[pieces[tuple(a)]] != group[pieces[tuple(b)]])
        a, b = a[:, apart], b[:, apart]
        pairs = np.stack([pieces[tuple(a)], pieces[tuple(b)]])
        for i in np.unique(pairs, axis=1, return_index=True)[1]:
            p, q = group[pairs[:, i]]
            from_, to = tuple(a[:, i]), tuple(b[:, i])
            if p != q and owner[to] >= 0:
                group[group == q] = p
                yield int(owner[from_]), int(place[from_]), int(owner[to]), int(place[to])
    for n in range(1, count):  # further away than any cut that was tried
        if group[n] != group[1]:
            first, other = (np.argwhere((pieces == m) & (owner >= 0))[0] for m in (1, n))
            group[group == group[n]] = group[1]
            ends = tuple(first), tuple(other)
            yield int(owner[ends[0]]), int(place[ends[0]]), int(owner[ends[1]]), int(place[ends[1]])


def _offsets() -> list[tuple[int, int]]:
    """(dx, dy) of half of all directions, the shortest first."""
    span = range(-_REACH, _REACH + 1)
    half = [(x, y) for y in range(_REACH + 1) for x in span if y > 0 or x > 0]
    return sorted((o for o in half if np.hypot(*o) <= _REACH), key=lambda o: o[0] ** 2 + o[1] ** 2)


def _walk(loops: Sequence[Points], cuts: Sequence[_Cut]) -> Iterator[Points]:
    """All loops as one: where a cut begins, the loop at its other end is walked in between."""
    ends: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
    for a, i, b, k in cuts:
        ends[a].append((i, b, k))
        ends[b].append((k, a, i))
    seen, stack = {0}, [_stops(loops[0], 0, ends[0])]
    while stack:
        points, other, k = next(stack[-1], (None, -1, 0))
        if points is None:
            stack.pop()
            continue
        yield points
        if other >= 0 and other not in seen:
            seen.add(other)
            stack.append(_stops(loops[other], k, ends[other]))


def _stops(
    loop: Points, start: int, ends: Sequence[tuple[int, int, int]]
) -> Iterator[tuple[Points, int, int]]:
    """A loop from a point round to the same, up to each cut: points, and what the cut leads to."""
    size = len(loop)
    turned = np.roll(loop, -start, axis=0)
    done = 0
    for at, other, k in sorted(((i - start) % size, b, k) for i, b, k in ends):
        yield turned[done : at + 1], other, k
        done = at
    yield np.concatenate([turned[done:], turned[:1]]), -1, 0


def _without_straights(path: Points) -> Points:
    """Without the points between two equal steps, which draw nothing of their own."""
    before, after = path - np.roll(path, 1, axis=0), np.roll(path, -1, axis=0) - path
    turns = (before != after).any(axis=1)
    return path[turns] if turns.any() else path[:1]
