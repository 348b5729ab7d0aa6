"""Who trains and who tests: no workpiece on both sides, and nothing made from the test side."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from defectrt.errors import InputError

from ..data.layouts import GOOD
from ..data.samples import Sample
from .material import MadePicture, MadeSet
from .workpieces import halves, likeness, thumbnail, workpieces

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


_Found = tuple[list[Division], list[str]]


@dataclass(frozen=True)
class Sides:
    """All divisions of a proof.

    fixed     whether there is only one: a set was learned from given examples, or they were given
    by_looks  whether pictures that look nearly the same are of one workpiece
    notes     what was left out and why, and what is doubtful, a sentence each
    """

    divisions: tuple[Division, ...]
    fixed: bool
    by_looks: bool
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
    fixed = held_out is not None or any(
        s.sha256() in learned for s in real if s.defect_type != GOOD
    )
    if held_out is not None:
        divisions, notes = _given(real, held_out, learned, groups, near, seed)
    elif fixed:
        divisions, notes = _learned(real, learned, groups, near, seed)
    else:
        divisions, notes = _halved(real, learned, groups, near, splits, seed), []
    by_looks = "auto" in groups
    if not by_looks:
        notes += _lookalikes(divisions)
    return Sides(tuple(divisions), fixed, by_looks, tuple(notes))


def fit_for(made: MadeSet, division: Division, by_looks: bool) -> list[MadePicture]:
    """The pictures of a set that were made on no picture of the test side.

    Those whose source is none of the training side's pictures are left out ``by_looks``: if they
    look nearly the same as a picture of the test side.
    """
    test, train = ({s.sha256() for s in side} for side in (division.test, division.train))
    kept = [p for p in made.pictures if p.source not in test]
    unknown = [p for p in kept if p.source not in train]
    if not by_looks or not unknown:
        return kept
    alike = likeness(
        [thumbnail(p.sample.image) for p in unknown], [thumbnail(s.image) for s in division.test]
    ).any(axis=1)
    doubtful = {id(unknown[i]) for i in np.flatnonzero(alike)}
    return [p for p in kept if id(p) not in doubtful]


def unknown_leaks(made: MadeSet, given: Collection[str]) -> list[str]:
    """What cannot be known of a set, a sentence each; nothing if all is known.

    ``given`` are the hashes of all real pictures.
    """
    found = []
    if made.learned is None:
        found.append(
            f"{made.name}: it is not known what it was learned from; name its engine with --engine"
        )
    elif strangers := made.learned - set(given):
        found.append(
            f"{made.name}: it was learned from {len(strangers)} pictures that are not among those "
            "given here; whether they show a workpiece that is tested cannot be known"
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
) -> _Found:
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
) -> _Found:
    found = workpieces(real, groups, near)
    train = [i for i, s in enumerate(real) if s.sha256() in learned]
    test = [i for i, s in enumerate(real) if s.sha256() not in learned]
    train, test = _with_good(real, found, train, test, learned, seed)
    return _apart(real, found, train, test)


def _halved(
    real: Sequence[Sample],
    learned: frozenset[str],
    groups: Sequence[str],
    near: int | None,
    splits: int,
    seed: int,
) -> list[Division]:
    """Good pictures that were learned from train or are left out, and never test."""
    found, types = workpieces(real, groups, near), [s.defect_type for s in real]
    divisions = []
    for i in range(splits):
        train, test = halves(types, found, np.random.default_rng([seed, i]))
        test = [k for k in test if real[k].sha256() not in learned]
        divisions.append(_checked(_division(real, found, train, test)))
    return divisions


def _lookalikes(divisions: Sequence[Division]) -> Iterator[str]:
    """Test pictures that look like one that trains, though they are said to be of another piece."""
    for number, division in enumerate(divisions, 1):
        train, test = (
            [thumbnail(s.image) for s in side] for side in (division.train, division.test)
        )
        count = int(likeness(test, train).any(axis=1).sum())
        if count:
            yield (
                f"split {number}: {count} test pictures look nearly the same as one that is "
                "trained on; if they show the same workpiece, add --group auto"
            )


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
) -> _Found:
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
    return [_checked(_division(real, found, train, kept))], notes


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
