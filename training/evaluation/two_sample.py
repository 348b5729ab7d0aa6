"""A classifier two-sample test: can made defects be told from real ones? Near 50 % they cannot.

Each defect is seen in a window around its middle, without its mask, at the image's own scale and
relative to its surroundings: no network takes part, and brightness alone gives nothing away. As
many made ones as real ones are drawn; a logistic regression on gradients, profiles and amplitudes
of frequencies is tested on folds that it has not seen, and all is done again with other draws
(Lopez-Paz and Oquab 2017).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from defectrt.images.contrast import grey
from defectrt.images.types import Pixels
from defectrt.images.window import Window

from ..data.samples import Sample

__all__ = ["LEAST", "seen", "told_apart"]

#: Draws of made ones, folds of each, strength of the ridge, Newton's steps.
_DRAWS, _FOLDS, _RIDGE, _NEWTON = 20, 5, 10.0, 12
#: Defects of each kind, or workpieces, below which nothing can be cross-validated.
LEAST = 2 * _FOLDS

Floats = NDArray[np.float64]


def seen(sample: Sample, side: int, *, aside: bool = False) -> Floats:
    """[K]: what a window of ``side`` px around a defect looks like, relative to its border.

    With ``aside`` one beside the defect: what the pictures alone give away.
    """
    ys, xs = np.nonzero(sample.mask)
    y, x = (int(ys.min() + ys.max()) - side) // 2, (int(xs.min() + xs.max()) - side) // 2
    if aside:
        above, reach = y + side / 2 > sample.mask.shape[0] / 2, side // 2 + int(np.ptp(ys)) // 2 + 4
        y = min(max(0, y + (-reach if above else reach)), max(0, sample.mask.shape[0] - side))
    view = Window(y, x, side).crop(grey(sample.image))
    border = np.median([*view[:4], *view[-4:], *view[:, :4].T, *view[:, -4:].T])
    level = (view - border) / max(float(border), 1e-3)
    return np.concatenate(list(_parts(np.asarray(level, np.float32))))


def told_apart(
    real: Floats, made: Floats, pieces: Sequence[Sequence[int]] | None = None, seed: int = 0
) -> list[float] | None:
    """10th, 50th and 90th percentile, over draws, of the share of right guesses.

    real [N,K], made [M,K] of `seen`. ``pieces`` are the workpieces of both, which stay whole
    within a fold; by default each picture is its own. None for fewer than `LEAST` of a kind.
    """
    count = min(len(real), len(made))
    groups = [np.asarray(p) for p in pieces or (range(len(real)), range(len(made)))]
    if min(count, *(len(np.unique(g)) for g in groups)) < LEAST:
        return None
    rng, shares = np.random.default_rng(seed), []
    for _ in range(_DRAWS):
        ours, theirs = (rng.permutation(len(side))[:count] for side in (real, made))
        x = np.concatenate([real[ours], made[theirs]])
        y = np.repeat([0.0, 1.0], count)
        fold = np.concatenate(
            [_fold(g, rng)[i] for g, i in zip(groups, (ours, theirs), strict=True)]
        )
        shares.append(_folds(x, y, fold))
    return [float(q) for q in np.percentile(shares, (10, 50, 90))]


def _fold(groups: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """[N]: the fold of each, equal for those of one group."""
    names, of_each = np.unique(groups, return_inverse=True)
    return np.asarray((rng.permutation(len(names)) % _FOLDS)[of_each])


def _parts(level: Pixels) -> Iterator[Floats]:
    """Percentiles, a radial profile, gradients at three scales, the spectrum by radius."""
    side = len(level)
    yield np.percentile(level, (0, 1, 2, 5, 10, 25, 50, 75, 90, 95, 99, 100))
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    ring = (np.hypot(y, x) / (side / 16)).astype(int).clip(max=7)
    yield np.array([level[ring == i].mean() for i in range(8)])
    yield np.array([level[ring == i].std() for i in range(8)])
    for sigma in (0.0, 1.0, 2.0):
        smooth = cv2.GaussianBlur(level, (0, 0), sigma) if sigma else level
        slope = np.hypot(cv2.Sobel(smooth, -1, 1, 0), cv2.Sobel(smooth, -1, 0, 1)) / 8
        yield np.percentile(slope, (10, 25, 50, 75, 90, 95, 99, 100))
    fading = np.outer(np.hanning(side), np.hanning(side))
    wave = np.log(np.abs(np.fft.fftshift(np.fft.fft2(level * fading))) + 1e-3)
    yield np.array([wave[ring == i].mean() for i in range(8)])


def _folds(x: Floats, y: Floats, fold: NDArray[np.int64]) -> float:
    """Share of right guesses on folds that were not learned from."""
    right = []
    for i in range(_FOLDS):
        learn, test = fold != i, fold == i
        mean, spread = x[learn].mean(axis=0), x[learn].std(axis=0) + 1e-6
        weights = _fit(_bent((x[learn] - mean) / spread), y[learn])
        right.append((_bent((x[test] - mean) / spread) @ weights > 0) == (y[test] > 0.5))
    return float(np.concatenate(right).mean())


def _bent(x: Floats) -> Floats:
    """With squares, so that too much and too little of something can both give it away."""
    x = x.clip(-3, 3)
    return np.concatenate([np.ones((len(x), 1)), x, x**2 - 1], axis=1)


def _fit(x: Floats, y: Floats) -> Floats:
    """Logistic regression with a ridge, by Newton's method."""
    weights = np.zeros(x.shape[1])
    for _ in range(_NEWTON):
        p = 1 / (1 + np.exp(-(x @ weights).clip(-30, 30)))
        hessian = (x * (p * (1 - p))[:, None]).T @ x + _RIDGE * np.eye(len(weights))
        weights -= np.linalg.solve(hessian, x.T @ (p - y) + _RIDGE * weights)
    return weights
