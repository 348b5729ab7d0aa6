"""Which pictures show the same workpiece, and which workpieces train and which test."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from defectrt.errors import InputError
from defectrt.images.types import Bits, brightness

from ..data.layouts import GOOD, Item
from ..data.samples import Sample
from ..data.splits import SameWorkpiece

__all__ = ["Side", "halves", "likeness", "thumbnail", "workpieces"]

#: Correlation of two thumbnails from which on they show one workpiece.
_SAME = 0.95
_THUMB = 24

Side = tuple[list[int], list[int]]


def workpieces(
    samples: Sequence[Sample], groups: Sequence[str] = ("auto",), near: int | None = None
) -> list[int]:
    """The workpiece of every sample, as a number; what any rule of ``groups`` joins is one.

    A rule is ``folder`` (the name of the folder a picture lies in), ``auto`` (pictures that look
    nearly the same, see `likeness`) or a regular expression, see `SameWorkpiece`. Pictures with the
    same bytes are always of one workpiece.
    """
    pairs = _linked([s.sha256() for s in samples])
    for group in groups:
        if group == "auto":
            pairs += _alike([thumbnail(s.image) for s in samples])
        elif group == "folder":
            pairs += _linked([_folder(s) for s in samples])
        else:
            pairs += _linked(_matched(samples, SameWorkpiece(group, near)))
    return _joined(len(samples), pairs)


def thumbnail(image: Bits) -> NDArray[np.float32]:
    """[T*T] of mean 0 and length 1: brightness and contrast of the exposure are taken out."""
    small = cv2.resize(brightness(image), (_THUMB, _THUMB), interpolation=cv2.INTER_AREA).ravel()
    small = small - small.mean()
    return np.asarray(small / max(float(np.linalg.norm(small)), 1e-6), np.float32)


def likeness(
    some: Sequence[NDArray[np.float32]], others: Sequence[NDArray[np.float32]]
) -> NDArray[np.bool_]:
    """[N,M]: which thumbnails look nearly the same: they correlate by 0.95 or more."""
    return np.stack(some) @ np.stack(others).T >= _SAME


def halves(types: Sequence[str], groups: Sequence[int], rng: np.random.Generator) -> Side:
    """Indices to train on and to test on: of every type half the workpieces, none on both sides.

    Raises `InputError` naming the types that are of one workpiece only.
    """
    members: dict[int, list[int]] = defaultdict(list)
    for i, group in enumerate(groups):
        members[group].append(i)
    by_type: dict[str, list[int]] = defaultdict(list)
    for group, own in members.items():
        shown = sorted({types[i] for i in own}, key=lambda name: (name == GOOD, name))
        by_type[shown[0]].append(group)
    single = sorted(set(types) - {name for name, own in by_type.items() if len(own) > 1})
    if single:
        raise InputError(
            f"{', '.join(single)}: all pictures are of one workpiece, so they cannot be divided; "
            "say with --group what a workpiece is, or test on --held-out"
        )
    train: set[int] = set()
    for name in sorted(by_type):
        order = rng.permutation(by_type[name]).tolist()
        train |= set(order[::2])
    sides: Side = ([], [])
    for i, group in enumerate(groups):
        sides[group not in train].append(i)
    return sides


def _folder(sample: Sample) -> Hashable:
    parent = sample.path.parent.name
    if parent.lower() == sample.defect_type.lower():
        if sample.defect_type != GOOD:
            raise InputError(
                f"{sample.path}: lies in no folder of its workpiece, so --group folder cannot tell "
                "it; expected TYPE/WORKPIECE/name.jpg"
            )
        return sample.path
    return parent


def _matched(samples: Sequence[Sample], same: Callable[..., list[list[Item]]]) -> list[int]:
    items = [Item(s.path, s.path.as_posix(), s.defect_type) for s in samples]
    place = {item.path: i for i, group in enumerate(same(items)) for item in group}
    return [place[s.path] for s in samples]


def _alike(thumbs: Sequence[NDArray[np.float32]]) -> list[tuple[int, int]]:
    found = np.argwhere(np.triu(likeness(thumbs, thumbs), 1))
    return [(int(i), int(k)) for i, k in found]


def _linked(keys: Iterable[Hashable]) -> list[tuple[int, int]]:
    """Each index with the first that has the same key."""
    first: dict[Hashable, int] = {}
    return [(first.setdefault(key, i), i) for i, key in enumerate(keys)]


def _joined(count: int, pairs: Iterable[tuple[int, int]]) -> list[int]:
    """The least index that each is joined to, over any number of pairs."""
    parent = list(range(count))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    for a, b in pairs:
        low, high = sorted((root(a), root(b)))
        parent[high] = low
    return [root(i) for i in range(count)]
