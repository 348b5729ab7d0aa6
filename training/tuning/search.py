"""Which of several settings is best, from noisy scores: halving, then fresh rounds that confirm.

A round trains on the same crops of real pictures with every setting, so settings are compared
round by round. The best of many is the luckiest as well; so once one is chosen, it is compared
with the defaults again in rounds that had no part in choosing it, and only these decide whether it
is better. Jamieson and Talwalkar (2016), "Non-stochastic best arm identification", for the halving.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..proving.intervals import Gain, gain

__all__ = ["Outcome", "Score", "Trial", "search"]

T = TypeVar("T", bound=Hashable)

#: Of those that are left, how many go on: one in so many.
_ONE_IN = 3
#: Share of the budget that is for choosing; the rest is to confirm.
_CHOOSING = 0.6
#: Rounds of choosing and of confirming at most, and the number of the first that confirms.
_ROUNDS, _CONFIRMING, _FRESH = 4, 12, 1000
#: Rounds of which an interval can be told.
_LEAST = 2


@dataclass(frozen=True)
class Score:
    """Of one setting in one round.

    value    the figure, more is better
    drawn    [D], the same on test pictures drawn again
    seconds  that it took
    """

    value: float
    drawn: NDArray[np.float64]
    seconds: float


@dataclass(frozen=True)
class Trial(Generic[T]):
    """A setting that was tried.

    values  by round of choosing
    fresh   by round of confirming
    gain    over the defaults in choosing, its interval wider the more settings were tried
    """

    setting: T
    values: dict[int, float]
    fresh: dict[int, float]
    gain: Gain


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """What came of a search.

    trials     in the order in which they were begun, the defaults first
    untried    settings for which there was no time
    best       the setting that did best in choosing, if any did better than the defaults
    confirmed  its gain over the defaults in fresh rounds, if there was time for two or more
    over_real  the chosen setting's gain over real pictures alone in the same fresh rounds
    chosen     the best setting if it is better beyond noise, else the defaults
    seconds    that all of it took
    """

    trials: list[Trial[T]]
    untried: list[T]
    best: T | None
    confirmed: Gain | None
    over_real: Gain | None
    chosen: T
    seconds: float


@dataclass
class _Ledger(Generic[T]):
    """All scores so far, and what they took."""

    score: Callable[[T, int], Score]
    budget: float
    found: dict[tuple[T, int], Score] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        return sum(one.seconds for one in self.found.values())

    def has_time_for(self, count: int, share: float = 1.0) -> bool:
        """Whether so many more are likely to end within a share of the budget."""
        each = self.seconds / max(1, len(self.found))
        return self.seconds + count * each <= share * self.budget

    def add(self, setting: T, number: int) -> None:
        if (setting, number) not in self.found:
            self.found[setting, number] = self.score(setting, number)

    def rounds(self, *settings: T, fresh: bool = False) -> list[int]:
        """Those in which all of the settings were scored."""
        numbers = sorted({n for _, n in self.found if (n >= _FRESH) == fresh})
        return [n for n in numbers if all((s, n) in self.found for s in settings)]

    def gain(self, setting: T, over: T, *, compared: int = 1, fresh: bool = False) -> Gain:
        rounds = self.rounds(setting, over, fresh=fresh)
        pairs = [(self.found[setting, n], self.found[over, n]) for n in rounds]
        return gain(
            [a.value - b.value for a, b in pairs],
            [a.drawn - b.drawn for a, b in pairs],
            compared=compared,
        )


def search(
    settings: Sequence[T],
    score: Callable[[T, int], Score],
    budget: float,
    *,
    real: T,
    together: Callable[[T, T], T | None],
) -> Outcome[T]:
    """Choose among ``settings``, of which the first are the defaults.

    ``score`` is called with a setting and the number of a round; nothing is begun that is not
    likely to end within ``budget`` seconds by the scores' own account, but for the first round of
    the defaults. ``real``, real pictures alone, is scored beside them and not to be chosen. The
    best two are tried ``together`` as well, if that can be.
    """
    defaults, *others = settings
    ledger = _Ledger(score, budget)
    begun = _choose(ledger, defaults, others, real, together)
    tried = [s for s in begun if s not in (defaults, real)]
    means = {s: ledger.gain(s, defaults).mean for s in tried}
    best = max(tried, key=lambda s: (len(ledger.rounds(s)), means[s]), default=None)
    if best is not None and means[best] <= 0:
        best = None
    _confirm(ledger, [s for s in (defaults, best, real) if s is not None])
    fresh = ledger.rounds(defaults, real, fresh=True)
    told = len(fresh) >= _LEAST
    confirmed = ledger.gain(best, defaults, fresh=True) if told and best is not None else None
    better = confirmed is not None and confirmed.low is not None and confirmed.low > 0
    chosen = best if better and best is not None else defaults
    return Outcome(
        trials=[
            Trial(
                s,
                {n: ledger.found[s, n].value for n in ledger.rounds(s)},
                {n: ledger.found[s, n].value for n in ledger.rounds(s, fresh=True)},
                ledger.gain(s, defaults, compared=max(1, len(tried))),
            )
            for s in begun
        ],
        untried=[s for s in others if s not in begun],
        best=best,
        confirmed=confirmed,
        over_real=ledger.gain(chosen, real, fresh=True) if told else None,
        chosen=chosen,
        seconds=ledger.seconds,
    )


def _choose(
    ledger: _Ledger[T],
    defaults: T,
    others: Sequence[T],
    real: T,
    together: Callable[[T, T], T | None],
) -> list[T]:
    """Score in rounds, a third of the settings going on to the next; all that were begun."""
    ledger.add(defaults, 0)
    begun, left = [defaults], [real, *others]
    for number in range(_ROUNDS):
        for setting in (defaults, *left):
            if (setting, number) in ledger.found:
                continue
            if not ledger.has_time_for(1, _CHOOSING):
                return begun
            ledger.add(setting, number)
            begun += [setting] if setting not in begun else []
        ranked = sorted(
            (s for s in left if s != real),
            key=lambda s: ledger.gain(s, defaults).mean,
            reverse=True,
        )
        left = ranked[: max(1, -(-len(ranked) // _ONE_IN))]
        both = together(left[0], left[1]) if number == 0 and len(left) > 1 else None
        if both is not None:
            left = _with(ledger, begun, left, both)
        if len(left) <= 1 and number > 0:
            break
    return begun


def _with(ledger: _Ledger[T], begun: list[T], left: list[T], both: T) -> list[T]:
    """The settings that are left, and two of them together, if there is time for a round of it."""
    if not ledger.has_time_for(1, _CHOOSING):
        return left
    ledger.add(both, 0)
    begun.append(both)
    return [*left, both]


def _confirm(ledger: _Ledger[T], settings: Sequence[T]) -> None:
    """Fresh rounds of all the settings, as many as there is time for."""
    for number in range(_FRESH, _FRESH + _CONFIRMING):
        if not ledger.has_time_for(len(settings)):
            return
        for setting in settings:
            ledger.add(setting, number)
