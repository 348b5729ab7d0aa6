"""Which of many made pictures: any, or those whose defects are farthest from each other."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from defectrt.images.types import brightness

from ..data.samples import Sample

__all__ = ["far_apart", "some"]

#: Side of the small copies of a defect and of its mask; px around it.
_SIDE, _AROUND = 12, 3


def some(samples: Sequence[Sample], count: int, seed: int) -> list[Sample]:
    """``count`` of them, drawn by chance; more with another count begin alike."""
    order = np.random.default_rng(seed).permutation(len(samples))
    return [samples[i] for i in order[:count]]


def far_apart(samples: Sequence[Sample], count: int) -> list[Sample]:
    """``count`` of them, of every type in turn the one that is farthest from all taken before it.

    Gonzalez (1985), "Clustering to minimize the maximum intercluster distance"; each type begins
    with the one that is nearest to its mean. Defects are compared in length and height, in how
    they look and in the form of their masks, which count alike.
    """
    types = sorted({s.defect_type for s in samples})
    orders = [_farthest([s for s in samples if s.defect_type == name], count) for name in types]
    turns = (own[i] for i in range(count) for own in orders if i < len(own))
    return [sample for sample, _ in zip(turns, range(count), strict=False)]


def _farthest(samples: Sequence[Sample], count: int) -> list[Sample]:
    looks = _looks(samples)
    taken = [int(np.argmin(np.linalg.norm(looks, axis=1)))]
    away = np.linalg.norm(looks - looks[taken[0]], axis=1)
    while len(taken) < min(count, len(samples)):
        away[taken] = -1
        taken.append(int(np.argmax(away)))
        away = np.minimum(away, np.linalg.norm(looks - looks[taken[-1]], axis=1))
    return [samples[i] for i in taken]


def _looks(samples: Sequence[Sample]) -> NDArray[np.float64]:
    """[N,D] of mean 0: size, look and form, each with a mean square of 1."""
    parts = zip(*map(_look, samples), strict=True)
    return np.concatenate([_even(np.stack(part)) for part in parts], axis=1)


def _look(sample: Sample) -> tuple[NDArray[np.float64], ...]:
    ys, xs = np.nonzero(sample.mask)
    box = np.s_[
        max(0, ys.min() - _AROUND) : ys.max() + _AROUND + 1,
        max(0, xs.min() - _AROUND) : xs.max() + _AROUND + 1,
    ]
    seen = [brightness(sample.image[box]), sample.mask[box].astype(np.float32)]
    small = [cv2.resize(one, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA) for one in seen]
    size = np.log([np.ptp(ys) + 1, np.ptp(xs) + 1])
    look, form = (np.asarray(one, np.float64).ravel() for one in small)
    return size, look - look.mean(), form


def _even(part: NDArray[np.float64]) -> NDArray[np.float64]:
    part = part - part.mean(axis=0)
    return np.asarray(part / max(float(np.sqrt((part**2).sum(axis=1).mean())), 1e-9))
