"""Patches of another good picture, blended by Poisson's equation: NSA (Schlüter et al. 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from defectrt.errors import InputError
from defectrt.training.data.samples import Sample

from .writing import ANY, eight_bits, make_each, types_of

__all__ = ["make"]

#: Side of a patch, share of the picture's: the mean of a gamma distribution, and its ends.
_SHAPE, _SCALE, _SIDES = 2.0, 0.05, (0.03, 0.4)
#: Px of a side at least, for OpenCV's solver.
_SMALL = 6
#: Of the patch, before it is blended.
_RESIZED = (0.7, 1.3)
#: Patches in a picture, at most.
_MOST = 3
#: A change is labelled from this share of the range on, after a median of this many px.
_CHANGED, _MEDIAN = 0.03, 5
#: Px of a label at least: a patch that looks like what it covers is no defect.
_LEAST = 40


def make(shots: Sequence[Sample], good: Sequence[Sample], count: int, seed: int, out: Path) -> None:
    """Write pictures with one to three patches of others, seamless, labelled where they changed.

    Sides come from a gamma distribution, cut off; OpenCV's ``seamlessClone`` keeps the gradients
    of the patch or, half the time, the stronger of both. The shots only say how many types there
    are.
    """
    if len(good) < 2:
        raise InputError("NSA: needs two good pictures, one to take patches from")

    def draw(rng: np.random.Generator) -> Any:
        i, k = rng.choice(len(good), 2, replace=False)
        onto, source = good[i], eight_bits(good[k].image)
        before = eight_bits(onto.image)
        image = before.copy()
        for _ in range(int(rng.integers(1, _MOST + 1))):
            image = _blended(image, source, rng)
        change = np.abs(image.astype(np.float32) - before).mean(axis=2) / 255
        mask = cv2.medianBlur((change > _CHANGED).astype(np.uint8), _MEDIAN) > 0
        return (onto, image, mask) if mask.sum() >= _LEAST else None

    make_each(out, ANY, count * len(types_of(shots)), [seed], draw)


def _blended(image: Any, source: Any, rng: np.random.Generator) -> Any:
    h, w = image.shape[:2]
    high, wide = (int(np.clip(rng.gamma(_SHAPE, _SCALE), *_SIDES) * s) for s in source.shape[:2])
    y, x = (int(rng.integers(s - p)) for s, p in zip(source.shape[:2], (high, wide), strict=True))
    patch = source[y : y + max(high, _SMALL), x : x + max(wide, _SMALL)]
    factor = float(rng.uniform(*_RESIZED))
    high, wide = (
        int(np.clip(round(p * factor), _SMALL, s - 6))
        for p, s in zip(patch.shape[:2], (h, w), strict=True)
    )
    patch = cv2.resize(patch, (wide, high), interpolation=cv2.INTER_AREA)
    y, x = int(rng.integers(2, h - high - 2)), int(rng.integers(2, w - wide - 2))
    way = cv2.MIXED_CLONE if rng.random() < 0.5 else cv2.NORMAL_CLONE
    whole = np.full((high, wide), 255, np.uint8)
    middle = (x + wide // 2, y + high // 2)
    return cv2.seamlessClone(patch, np.ascontiguousarray(image), whole, middle, way)
