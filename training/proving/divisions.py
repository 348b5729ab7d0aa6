"""Who trains and who tests: no workpiece on both sides, and nothing made from the test side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from defectrt.errors import InputError

from ..data.layouts import GOOD
from ..data.samples import Sample
from .material import MadePicture, MadeSet
from .workpieces import halves, workpieces

__all__ = ["Division", "Sides", "divide", "fit_for", "unknown_leaks"]

#: Share of the good pictures that is held out where nothing else says which are.
_SOME = 2


@dataclass(frozen=True)
class Division:
    """One division of the real pictures.

    train, test        pictures of the two sides
    train_pieces       the workpiece of each picture of a side, as a number
    test_pieces
    """

    train: tuple[Sample, ...]
    test: tuple[Sample, ...]
    train_pieces: tuple[int, ...]
    test_pieces: tuple[int, ...]


@dataclass(frozen=True)
class Sides:
    """All divisions of a proof.

    fixed  whether there is only one: a set was learned from given examples, or they were given
    notes  what was left out and why, a sentence each
    """

    divisions: tuple[Division, ...]
    fixed: bool
    notes: tuple[str, ...]


def divide(
    real: Sequence[Sample],
    held_out: Sequence[Sample] | None,
    made: Sequence[MadeSet],
    *,
    groups: Sequence[str] = ("auto",),
    near: int | None = None,
    splits: int = 3,
    seed: int = 0,
) -> Sides:
    """Divide real pictures so that nothing on the test side was ever learned from.

    With ``held_out`` those test. Else, if a set of ``made`` was learned from some of the pictures,
    those train and all others test. Else half of the workpieces of every type train, in
    ``splits`` ways. Pictures of a workpiece on the other side are left out.

    Raises `InputError` if a set was learned from held-out pictures, or if a side lacks defects or
    good pictures.
    """
    learned = frozenset[str]().union(*(m.learned or () for m in made))
    if held_out is not None:
        return _given(real, held_out, learned, groups, near, seed)
    if any(s.sha256() in learned for s in real if s.defect_type != GOOD):
        return _learned(real, learned, groups, near, seed)
    found = workpieces(real, groups, near)
    types = [s.defect_type for s in real]
    divisions = []
    for i in range(splits):
        sides = halves(types, found, np.random.default_rng([seed, i]))
        divisions.append(_checked(_division(real, found, *sides)))
    return Sides(tuple(divisions), False, ())


def fit_for(made: MadeSet, division: Division, real: Sequence[Sample]) -> list[MadePicture]:
    """The pictures of a set that were made on no picture, and no workpiece, of the test side.

    ``real`` are all real pictures: one that is there and does not train is no source.
    """
    allowed = {s.sha256() for s in division.train}
    known = {s.sha256() for s in (*real, *division.test)}
    return [p for p in made.pictures if p.source in allowed or p.source not in known]


def unknown_leaks(made: MadeSet) -> list[str]:
    """What cannot be known of a set, a sentence each; nothing if all is known."""
    found = []
    if made.learned is None:
        found.append(
            f"{made.name}: it is not known what it was learned from; name its engine with --engine"
        )
    if not made.sources_known:
        found.append(f"{made.name}: its pictures do not say which good pictures they were made on")
    return found


def _given(
    real: Sequence[Sample],
    held_out: Sequence[Sample],
    learned: frozenset[str],
    groups: Sequence[str],
    near: int | None,
    seed: int,
) -> Sides:
    again = [s.path.name for s in held_out if s.sha256() in learned]
    if again:
        raise InputError(
            f"--held-out: the made pictures were learned from {len(again)} of the pictures to "
            f"test on: {_some(again)}; hold out others"
        )
    both = [*real, *held_out]
    found = workpieces(both, groups, near)
    train, test = list(range(len(real))), list(range(len(real), len(both)))
    train, test = _with_good(both, found, train, test, learned, seed)
    return _apart(both, found, train, test)


def _learned(
    real: Sequence[Sample],
    learned: frozenset[str],
    groups: Sequence[str],
    near: int | None,
    seed: int,
) -> Sides:
    found = workpieces(real, groups, near)
    train = [i for i, s in enumerate(real) if s.sha256() in learned]
    test = [i for i, s in enumerate(real) if s.sha256() not in learned]
    train, test = _with_good(real, found, train, test, learned, seed)
    return _apart(real, found, train, test)


def _with_good(
    real: Sequence[Sample],
    found: Sequence[int],
    train: list[int],
    test: list[int],
    learned: frozenset[str],
    seed: int,
) -> tuple[list[int], list[int]]:
    """Move half of the good pictures that nothing was learned from to a side that has none."""
    for poor, rich in ((test, train), (train, test)):
        if any(real[i].defect_type == GOOD for i in poor):
            continue
        good = [
            i
            for i in rich
            if real[i].defect_type == GOOD and (poor is train or real[i].sha256() not in learned)
        ]
        groups = np.random.default_rng(seed).permutation(sorted({found[i] for i in good}))
        moved = set(groups[: len(groups) // _SOME].tolist())
        taken = [i for i in good if found[i] in moved]
        poor += taken
        rich[:] = [i for i in rich if i not in set(taken)]
    return train, test


def _apart(
    real: Sequence[Sample], found: Sequence[int], train: Sequence[int], test: Sequence[int]
) -> Sides:
    """The one division there is, without test pictures whose workpiece trains."""
    of_train = {found[i] for i in train}
    left = [i for i in test if found[i] in of_train]
    kept = [i for i in test if found[i] not in of_train]
    notes = []
    if left:
        names = [f"{real[i].defect_type}/{real[i].path.name}" for i in left]
        notes.append(
            f"{len(left)} pictures are not tested on, since they show a workpiece that is "
            f"trained on: {_some(names)}"
        )
    return Sides((_checked(_division(real, found, train, kept)),), True, tuple(notes))


def _division(
    real: Sequence[Sample], found: Sequence[int], train: Sequence[int], test: Sequence[int]
) -> Division:
    return Division(
        tuple(real[i] for i in train),
        tuple(real[i] for i in test),
        tuple(found[i] for i in train),
        tuple(found[i] for i in test),
    )


def _checked(division: Division) -> Division:
    for side, samples in (("train", division.train), ("test", division.test)):
        shown = {s.defect_type for s in samples}
        lack = [w for w, ok in (("defects", shown - {GOOD}), ("good", GOOD in shown)) if not ok]
        if lack:
            raise InputError(
                f"the {side} side has no {' and no '.join(lack)} pictures once no workpiece is on "
                "both sides; give more with --good or --held-out, or say with --group what a "
                "workpiece is"
            )
    return division


def _some(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
