"""Rates with intervals, thresholds of scores, and how detection depends on a size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Detection",
    "Rate",
    "best_f1_at",
    "detection",
    "rate",
    "threshold_finding",
    "threshold_for",
]

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

#: Of the normal distribution, for 95 %.
_Z = 1.959964
_OUTSIDE = 0.05
#: Newton's steps, the ridge on a slope, points of a curve.
_NEWTON, _RIDGE, _POINTS = 25, 1e-2, 48


@dataclass(frozen=True)
class Rate:
    """A share, the interval that holds 95 % of it, and of how many, on how many workpieces."""

    value: float
    low: float
    high: float
    count: int
    workpieces: int


@dataclass(frozen=True)
class Detection:
    """The chance of detection by a size (MIL-HDBK-1823A, hit or miss, logistic).

    x, chance, low, high  the curve, and the band that holds 95 %
    limit                 from which size on the wanted share is found; None: not within what was
                          tested
    sure                  the same with 95 % confidence
    """

    x: list[float]
    chance: list[float]
    low: list[float]
    high: list[float]
    limit: float | None
    sure: float | None


def rate(hits: Flags, workpieces: NDArray[np.int64]) -> Rate | None:
    """The share of ``hits`` [N] with Wilson's interval, counting workpieces; None of nothing.

    Pictures of one workpiece tell little more than one of them: it is their number that decides
    how wide the interval is.
    """
    if not len(hits):
        return None
    p, n = float(hits.mean()), len(np.unique(workpieces))
    middle = (p + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    reach = _Z / (1 + _Z**2 / n) * np.sqrt(p * (1 - p) / n + _Z**2 / (4 * n**2))
    low, high = max(0.0, float(middle - reach)), min(1.0, float(middle + reach))
    return Rate(p, min(low, p), max(high, p), len(hits), n)


def threshold_for(good: Floats, allowed: float, weights: Floats | None = None) -> Floats:
    """[B]: the least threshold that at most the ``allowed`` share of good scores [N] reaches.

    weights [B,N], by default all once. It lies just above a score, which does not reach it even
    where both are rounded to float32, unless scores differ by less than that tells apart.
    """
    weights = np.ones((1, len(good))) if weights is None else weights
    order = np.argsort(-good)
    reached = np.cumsum(weights[:, order], axis=1)
    budget = allowed * reached[:, -1:] + 1e-9
    last = good[order][np.argmax(reached > budget, axis=1)]
    exact = np.nextafter(last.astype(np.float64), np.inf)
    with np.errstate(over="ignore"):
        rounded = np.nextafter(last.astype(np.float32), np.float32(np.inf)).astype(np.float64)
    ordered = np.sort(good)
    same = np.searchsorted(ordered, rounded) == np.searchsorted(ordered, exact)
    return np.where(same & np.isfinite(rounded) & (rounded >= exact), rounded, exact)


def threshold_finding(scores: Floats, share: float) -> float:
    """The largest threshold that at least a ``share`` of the scores [N] reaches."""
    ordered = np.sort(scores)[::-1]
    return float(ordered[max(0, int(np.ceil(share * len(scores) - 1e-9)) - 1)])


def best_f1_at(defective: Floats, good: Floats) -> float:
    """The threshold of the best F1, as if there were as many defective pictures as good ones."""
    values = np.unique(np.concatenate([defective, good]))
    found, alarms = (
        1 - np.searchsorted(np.sort(side), values, side="left") / len(side)
        for side in (defective, good)
    )
    return float(values[np.argmax(2 * found / (1 + found + alarms))])


def detection(
    sizes: Floats, hits: Flags, weights: Floats, share: float, *, logarithmic: bool = False
) -> Detection | None:
    """How the chance of a hit depends on ``sizes`` [P]; None where all are of one size.

    hits [P]; weights [B,P] of defects on pictures drawn again; ``share``, the wanted chance.
    """
    bent = np.log(np.maximum(sizes, 1e-12)) if logarithmic else sizes
    middle, spread = float(bent.mean()), float(bent.std())
    if spread < 1e-9:
        return None
    x, y = (bent - middle) / spread, hits.astype(float)
    ends = np.linspace(x.min(), x.max(), _POINTS)
    plain = _fit(x, y, np.ones(len(x)))
    drawn = np.array([_fit(x, y, w) for w in weights if w.any()])
    band = np.quantile(_chance(ends, drawn), (_OUTSIDE / 2, 1 - _OUTSIDE / 2), axis=0)

    def size_of(value: float) -> float:
        back = value * spread + middle
        return float(np.exp(back)) if logarithmic else float(back)

    def tested(value: float) -> float | None:
        return size_of(value) if x.min() <= value <= x.max() else None

    limits = np.array([_limit(fit, share) for fit in drawn])
    varied = bool(hits.any() and not hits.all())
    return Detection(
        [size_of(v) for v in ends],
        _chance(ends, plain[None])[0].tolist(),
        band[0].tolist(),
        band[1].tolist(),
        tested(_limit(plain, share)) if varied else None,
        tested(float(np.quantile(limits, 1 - _OUTSIDE, method="higher"))) if varied else None,
    )


def _chance(x: Floats, fits: Floats) -> Floats:
    """[B,K] at x [K] of fits [B,2]."""
    return np.asarray(1 / (1 + np.exp(-(fits[:, :1] + fits[:, 1:] * x).clip(-30, 30))))


def _limit(fit: Floats, share: float) -> float:
    """Where the chance reaches ``share``; infinite where it does not rise."""
    wanted = np.log(share / (1 - share))
    return float((wanted - fit[0]) / fit[1]) if fit[1] > 1e-6 else float("inf")


def _fit(x: Floats, y: Floats, weights: Floats) -> Floats:
    """Offset and slope of a logistic regression, by Newton's method with a small ridge."""
    columns, found = np.column_stack([np.ones(len(x)), x]), np.zeros(2)
    ridge = _RIDGE * np.eye(2)
    for _ in range(_NEWTON):
        p = 1 / (1 + np.exp(-(columns @ found).clip(-30, 30)))
        hessian = (columns.T * (weights * p * (1 - p))) @ columns + ridge
        step = np.linalg.solve(hessian, columns.T @ (weights * (y - p)) - ridge @ found)
        found = found + step.clip(-4, 4)
    return found
