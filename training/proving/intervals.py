"""How sure a difference is: test workpieces drawn again, and the scatter of trainings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["DRAWS", "UNKNOWN", "Gain", "Verdict", "gain", "resampled", "verdict"]

#: Bootstrap samples, and the share that an interval leaves out.
DRAWS, _OUTSIDE = 1000, 0.05

Floats = NDArray[np.float64]
Verdict = Literal["helps", "does not help", "cannot be told yet"]
UNKNOWN: Verdict = "cannot be told yet"


@dataclass(frozen=True)
class Gain:
    """A mean, or a difference of two, over trainings, and its interval.

    low and high are None where nothing can be said: one training alone does not tell its scatter.
    """

    mean: float
    low: float | None
    high: float | None
    runs: int


def resampled(
    workpieces: Sequence[int] | NDArray[np.int64], seed: int, draws: int = DRAWS
) -> Floats:
    """Weights [draws,N]: how often each picture is there when workpieces are drawn with return."""
    found, of_picture = np.unique(np.asarray(workpieces), return_inverse=True)
    rng = np.random.default_rng(seed)
    times = rng.multinomial(len(found), np.full(len(found), 1 / len(found)), size=draws)
    return np.asarray(times[:, of_picture], float)


def gain(
    values: Sequence[float],
    drawn: Sequence[Floats],
    *,
    least: float = -1.0,
    compared: int = 1,
    seed: int = 0,
) -> Gain:
    """Mean of a figure, or of a paired difference, with its interval.

    values [R] of the trainings on the whole test side; drawn [R] of [draws], the same on test
    pictures drawn again, equally for trainings of one split. To the bootstrap's spread of the mean
    the trainings' own is added: their standard error times a Student t of R - 1 degrees. The
    interval holds 95 %; where ``compared`` arms were tried, 1 - 0.05 / compared (Bonferroni). It
    does not go beyond what is possible, ``least`` to 1.
    """
    mean, runs = float(np.mean(values)), len(values)
    if runs < 2:
        return Gain(mean, None, None, runs)
    over_pictures = np.mean(drawn, axis=0)
    rng = np.random.default_rng(seed)
    error = np.std(values, ddof=1) / np.sqrt(runs)
    over_trainings = error * rng.standard_t(runs - 1, size=len(over_pictures))
    spread = over_pictures - np.nanmean(over_pictures) + over_trainings
    outside = _OUTSIDE / compared
    low, high = np.nanquantile(spread, (outside / 2, 1 - outside / 2))
    return Gain(mean, max(least, float(mean + low)), min(1.0, float(mean + high)), runs)


def verdict(difference: Gain, worth: float) -> Verdict:
    """What the interval of a gain says, if a gain of ``worth`` is worth having."""
    if difference.low is None or difference.high is None:
        return UNKNOWN
    if difference.low > 0:
        return "helps"
    return "does not help" if difference.high < worth else UNKNOWN
