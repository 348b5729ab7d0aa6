"""What the trainings of each row found, both folds together, with intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from defectrt.training.data.layouts import GOOD
from defectrt.training.proving.figures import TestSet, figures
from defectrt.training.proving.intervals import DRAWS, Gain, gain, resampled
from defectrt.training.proving.runs import Runs

__all__ = ["Finding", "Judge", "Tested"]

Floats = NDArray[np.float64]
Round = tuple[int, int]


@dataclass(frozen=True)
class Finding:
    """A finished training of a row: its fold, its seed, where it lies in `Runs`."""

    row: str
    fold: int
    seed: int
    key: str


@dataclass(frozen=True)
class Tested:
    """What all folds' test sides hold: defects that lie apart, pictures, workpieces."""

    defects: int
    defective: int
    good: int
    workpieces: int


class Judge:
    """Figures of every finished training, plain and on test workpieces drawn again."""

    def __init__(self, tests: Sequence[TestSet], findings: Iterable[Finding], runs: Runs) -> None:
        """``tests`` by fold; ``findings`` that are finished in ``runs``."""
        weights = [
            np.concatenate([np.ones((1, len(t.names))), resampled(t.workpieces, fold, DRAWS)])
            for fold, t in enumerate(tests)
        ]
        self._tests, self._found = tests, dict[str, dict[Round, dict[str, Floats]]]()
        seen = dict[tuple[int, str], dict[str, Floats]]()
        for one in findings:
            at = one.fold, one.key
            if at not in seen:
                seen[at] = figures(tests[one.fold], runs.tally(one.key), weights[one.fold])
            self._found.setdefault(one.row, {})[one.fold, one.seed] = seen[at]

    def rounds(self, row: str) -> list[Round]:
        """Folds and seeds of which a row is finished."""
        return sorted(self._found.get(row, ()))

    def figure(self, row: str, name: str) -> Gain:
        """The mean of a figure over a row's trainings."""
        own = [self._found[row][at][name] for at in self.rounds(row)]
        return gain([float(v[0]) for v in own], [v[1:] for v in own], least=0.0)

    def by_type(self, row: str) -> dict[str, float]:
        """The mean pixel AP of each type over a row's trainings that tested it."""
        own = [self._found[row][at] for at in self.rounds(row)]
        types = sorted({*(t for test in self._tests for t in test.types.tolist())} - {GOOD})
        names = {name: f"pixel_ap {name}" for name in types}
        return {
            name: float(np.mean([found[key][0] for found in own if key in found]))
            for name, key in names.items()
        }

    def over(self, row: str, base: str, name: str) -> Gain | None:
        """The mean difference of a figure to a row's of the same fold and seed; None: no pair."""
        both = sorted({*self.rounds(row)} & {*self.rounds(base)})
        if row == base or not both:
            return None
        pairs = [(self._found[row][at][name], self._found[base][at][name]) for at in both]
        return gain([float(a[0] - b[0]) for a, b in pairs], [a[1:] - b[1:] for a, b in pairs])

    def tested(self) -> Tested:
        """Counts over all folds."""
        pictures = Counter[str]()
        for test in self._tests:
            pictures.update(test.types.tolist())
        return Tested(
            defects=sum(len(t.area) for t in self._tests),
            defective=sum(pictures.values()) - pictures[GOOD],
            good=pictures[GOOD],
            workpieces=sum(len({*t.workpieces.tolist()}) for t in self._tests),
        )
