"""How a defect gets the strength that is wanted; see `defectrt.images.contrast`.

A model paints a defect as strong as it does; the change that it made, multiplied, is the same
defect weaker or stronger.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, sqrt

import numpy as np

from ..diffusion.seeds import sample_seed
from ..images.contrast import contrast, strength, surroundings
from ..images.types import Mask, Pixels

__all__ = ["BUNDLED_STRENGTH", "Strengths", "brightness_around", "strengthened", "times"]

#: Of the bundled engine's defects, which the model paints as plain as can be: black, or white.
BUNDLED_STRENGTH = (0.3, 0.8)

#: A change is multiplied by this much at most: what is painted besides the defect grows with it.
_MOST = 2.0
#: Halvings of the interval in which the factor lies.
_HALVINGS = 12
#: Spread of the logarithm of strengths: of one example alone, and of any at least; how many spreads
#: from the middle strengths may lie.
_ALONE, _LEAST, _AWAY = 0.3, 0.1, 3.0
_FAINTEST = 0.02


def brightness_around(levels: Pixels, mask: Mask, seen: Mask) -> float:
    """Brightness around a defect; where it leaves nothing around it, of all that is seen.

    levels [H,W] in [0,1]; ``mask`` is where the defect was asked for, ``seen`` what counts at all.
    """
    found = surroundings(levels, mask, seen)
    return float(np.median(levels[seen])) if found is None else found


def strengthened(
    before: Pixels, change: Pixels, around: float, *, wanted: float | None, visible: float
) -> tuple[float, float]:
    """By how much to multiply a change, and how strong the defect is then.

    before, change [n] in [0,1], of the px of the defect. As strong as ``wanted``, or, without, as
    it comes; its mean change stays at least ``visible`` if it was.
    """
    if not before.size:
        return 1.0, 0.0
    factor = 1.0
    if wanted is not None:
        least = min(1.0, visible / max(float(np.abs(change).mean()), 1e-6))
        factor = times(before, change, around, wanted, least)
    return factor, strength(np.clip(before + np.float32(factor) * change, 0, 1), around)


def times(before: Pixels, change: Pixels, around: float, wanted: float, least: float) -> float:
    """By how much to multiply a change so that a defect is as strong as wanted, or nearly.

    before, change [n] in [0,1], of the px of the defect. From ``least`` up to `_MOST`; more
    strength wanted is never less.
    """
    painted = before + change
    dark = contrast(painted, around, dark=True) >= contrast(painted, around, dark=False)

    def at(factor: float) -> float:
        return contrast(np.clip(before + np.float32(factor) * change, 0, 1), around, dark=dark)

    low, high = min(least, _MOST), _MOST
    if at(low) >= wanted:
        return low
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if at(middle) <= wanted else (low, middle)
    return low


class Strengths:
    """What strength each defect gets: a pure function of a seed, an image and a sample's number."""

    def __init__(
        self,
        seed: int,
        defect_type: str,
        interval: tuple[float, float] | None = None,
        examples: Sequence[float] = (),
    ) -> None:
        """From an interval, or around those of examples, or, without either, as it comes."""
        self._seed = sample_seed(seed, f"strength of {defect_type}", 0)
        self._interval, self._count = interval, len(examples)
        if examples:
            known = np.log([max(_FAINTEST, one) for one in examples])
            self._middle = float(known.mean())
            alone = len(known) == 1
            self._spread = _ALONE if alone else max(_LEAST, float(known.std(ddof=1)))

    def __call__(self, source: str, number: int, instance: int) -> float | None:
        """Of one instance of a sample; None is as strong as the model paints it."""
        if not self._interval and not self._count:
            return None
        return self._draw(
            np.random.default_rng([sample_seed(self._seed, source, number), instance])
        )

    def _draw(self, rng: np.random.Generator) -> float:
        """From the distribution in which the next example is to be expected: Student's.

        The fewer examples there are, the wider it is.
        """
        if self._interval:
            return float(rng.uniform(*self._interval))
        away = rng.standard_t(max(1, self._count - 1)) * sqrt(1 + 1 / self._count)
        return exp(self._middle + self._spread * min(_AWAY, max(-_AWAY, float(away))))
