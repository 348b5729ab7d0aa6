"""Which images a model learns from and which are held out, with the hash of every image.

The paper's two folds, k images of each defect type, or a file. Images of one workpiece, and
images that are byte for byte the same, always go to the same side: a model is not measured on
a workpiece that it has seen.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from defectrt.errors import InputError
from defectrt.files import read_file, sha256_of, write_whole

from .dataset import Dataset
from .layouts import GOOD, Item
from .samples import Sample, check_item

__all__ = [
    "LeftOut",
    "SameWorkpiece",
    "Split",
    "SplitEntry",
    "few_shot",
    "fold",
    "hashed",
    "read_split",
    "samples_of",
    "whole",
    "write_split",
]

#: Larger files are no split.
_MAX_BYTES = 64 << 20


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SplitEntry(_Record):
    """An image of a split; a list that came with a dataset has no hashes."""

    name: str
    defect_type: str
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")


class LeftOut(_Record):
    """An image on neither side, and why."""

    name: str
    reason: str


class Split(_Record):
    """A dataset in two.

    layout    the dataset's layout, and ``method`` how it was split
    train     images to learn from
    test      images to measure on
    left_out  images on neither side: those with a fault, and those that show the same workpiece as
              an image on the other side
    """

    format: Literal["defectrt-split"] = "defectrt-split"
    format_version: Literal[1] = 1
    layout: str
    method: dict[str, Any]
    train: tuple[SplitEntry, ...]
    test: tuple[SplitEntry, ...]
    left_out: tuple[LeftOut, ...] = ()

    def counts(self) -> dict[str, dict[str, int]]:
        """Images by side and defect type."""
        sides = {"train": self.train, "test": self.test}
        return {
            side: dict(Counter(e.defect_type for e in entries)) for side, entries in sides.items()
        }


def fold(
    dataset: Dataset, number: int, *, seed: int = 0, grouping: SameWorkpiece | None = None
) -> Split:
    """Learn from one of two folds and measure on the other, as the paper does.

    ``number`` is 0 or 1, and what is held out of the one is learned from in the other. Every type
    is halved as evenly as its groups allow. Good images follow the layout's own subsets
    (train is learned from, validation and test are not); without any they are halved too.
    """
    if number not in (0, 1):
        raise InputError(f"fold {number}: the paper has two, 0 and 1")
    items, left_out = _usable(dataset)
    groups = _groups(items, grouping)
    side = _halves(groups, np.random.default_rng(seed))
    train = [
        item for g, s in zip(groups, side, strict=True) if s in (number, "train") for item in g
    ]
    method = {"name": "fold", "fold": number, "seed": seed} | _grouped(grouping)
    return _split(dataset, method, items, train, left_out)


def few_shot(
    dataset: Dataset, shots: int, *, seed: int = 0, grouping: SameWorkpiece | None = None
) -> Split:
    """Learn from ``shots`` images of every type, each of another workpiece; measure on the rest.

    Further images of a workpiece that was learned from are left out. Good images are split as by
    `fold`. Raises `InputError` naming the defect types that have too few workpieces.
    """
    if shots < 1:
        raise InputError(f"{shots} shots: at least 1")
    items, left_out = _usable(dataset)
    groups = _groups(items, grouping)
    rng = np.random.default_rng(seed)
    side = _halves(groups, rng)
    train: list[Item] = []
    taken: set[int] = set()
    short = []
    for defect_type in dataset.defect_types:
        free = [i for i, g in enumerate(groups) if i not in taken and _has(g, defect_type)]
        chosen = sorted(rng.permutation(free)[:shots].tolist())
        if len(chosen) < shots:
            short.append(f"{defect_type} has {len(chosen)}")
        taken |= set(chosen)
        train += [
            next(item for item in groups[i] if item.defect_type == defect_type) for i in chosen
        ]
    if short:
        raise InputError(f"{shots} shots: {', '.join(short)} workpieces that no other type uses")
    of_train = {item.name for item in train}
    for i in taken:
        for item in groups[i]:
            if item.name not in of_train:
                reason = "shows a workpiece that is learned from"
                left_out.append(LeftOut(name=item.name, reason=reason))
    for i, group in enumerate(groups):
        if (
            i not in taken
            and side[i] in (0, "train")
            and all(item.defect_type == GOOD for item in group)
        ):
            train += group
    method = {"name": "few-shot", "shots": shots, "seed": seed} | _grouped(grouping)
    return _split(dataset, method, items, train, left_out)


def whole(dataset: Dataset) -> Split:
    """Learn from everything but the good images that the layout keeps for testing."""
    train = [
        item for item in dataset.items if item.defect_type != GOOD or item.subset in ("", "train")
    ]
    return _split(dataset, {"name": "whole"}, list(dataset.items), train, [])


@dataclass(frozen=True)
class SameWorkpiece:
    """Groups images in whose names the regular expression ``pattern`` matches the same.

    What its groups match counts, or all that it matches if it has none. With ``within`` that is a
    number, and numbers that follow on each other by less than it belong together: cameras count
    on while one workpiece is photographed several times.
    """

    pattern: str
    within: int | None = None

    def __call__(self, items: Sequence[Item]) -> list[list[Item]]:
        """Raises `InputError` if a name does not match, or what matches is no number."""
        try:
            pattern = re.compile(self.pattern)
        except re.error as error:
            raise InputError(f"{self.pattern!r}: not a regular expression ({error})") from error
        keys = {item.name: _key(pattern, item.name) for item in items}
        if self.within is not None:
            keys = _runs(keys, self.within)
        groups: dict[str, list[Item]] = defaultdict(list)
        for item in items:
            groups[keys[item.name]].append(item)
        return list(groups.values())


def _key(pattern: re.Pattern[str], name: str) -> str:
    match = pattern.search(name)
    if not match:
        raise InputError(
            f"{pattern.pattern!r} does not match {name}, so it cannot tell its workpiece"
        )
    return "\0".join(g or "" for g in match.groups()) if pattern.groups else match[0]


def _runs(keys: Mapping[str, str], within: int) -> dict[str, str]:
    """Numbers that follow on each other by less than ``within`` become one key."""
    for name, key in keys.items():
        if not key.isdecimal():
            raise InputError(f"{key!r} in {name} is no number, so none can be near it")
    numbers = sorted({int(key) for key in keys.values()})
    run = dict.fromkeys(numbers[:1], 0)
    for before, number in pairwise(numbers):
        run[number] = run[before] + (number - before >= within)
    return {name: str(run[int(key)]) for name, key in keys.items()}


def write_split(split: Split, path: Path) -> None:
    """Write a split as JSON, whole or not at all. Raises `OutputError`."""
    write_whole(path, (json.dumps(split.model_dump(), indent=1) + "\n").encode())


def read_split(path: Path, dataset: Dataset) -> Split:
    """A split from a file: one of ours, or a list such as VisA's split_csv (no hashes there).

    Raises `InputError` naming everything in the file that is not as it should be.
    """
    try:
        text = read_file(path, _MAX_BYTES).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    if path.suffix.lower() == ".csv":
        split = _from_csv(path, text, dataset)
    else:
        try:
            split = Split.model_validate_json(text)
        except ValidationError as error:
            faults = "; ".join(
                f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()
            )
            raise InputError(f"{path}: not a split: {faults}") from error
    if split.layout != dataset.layout.name:
        raise InputError(
            f"{path}: is of a dataset read as {split.layout}, not {dataset.layout.name}; add "
            f"--layout {split.layout}, or split again"
        )
    both = {e.name for e in split.train} & {e.name for e in split.test}
    shared = {e.sha256 for e in split.train} & {e.sha256 for e in split.test} - {None}
    if both or shared:
        raise InputError(f"{path}: {len(both) or len(shared)} images are on both sides")
    return split


def samples_of(dataset: Dataset, split: Split, side: Literal["train", "test"]) -> list[Sample]:
    """The samples of one side of a split, in the order of their names.

    Raises `InputError` listing what cannot be used: images with a fault, and images that the
    split does not know as they are.
    """
    entries = {entry.name: entry for entry in getattr(split, side)}
    items = [item for item in dataset.items if item.name in entries]
    missing = sorted(entries.keys() - {item.name for item in items})
    if missing:
        raise InputError(f"{dataset.root}: lacks images of the split: {_some(missing)}")
    samples = dataset.read(items)
    hashes = ((item.name, sample.sha256()) for item, sample in zip(items, samples, strict=True))
    changed = [name for name, sha in hashes if entries[name].sha256 not in (None, sha)]
    if changed:
        raise InputError(f"{dataset.root}: images changed since the split: {_some(changed)}")
    return samples


def hashed(split: Split, dataset: Dataset) -> Split:
    """The split with the hash of every image there; a list that came with a dataset has none."""
    items = {item.name: item for item in dataset.items}
    sides = {
        side: tuple(
            e if e.sha256 or e.name not in items else _entry(items[e.name]) for e in entries
        )
        for side, entries in (("train", split.train), ("test", split.test))
    }
    return split.model_copy(update=sides)


def _from_csv(path: Path, text: str, dataset: Dataset) -> Split:
    try:
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
    except csv.Error as error:
        raise InputError(f"{path}: not a CSV file that can be read ({error})") from error
    if not rows or any(row.get(key) is None for row in rows for key in ("image", "split")):
        raise InputError(f"{path}: expected a CSV file with the columns image and split")
    own, defect_types = (
        dataset.root.resolve().name,
        {item.name: item.defect_type for item in dataset.items},
    )
    sides: Mapping[str, list[SplitEntry]] = {"train": [], "test": []}
    for row in rows:
        if row.get("object", own) == own and row["split"] in sides:
            name = row["image"].removeprefix(f"{own}/")
            sides[row["split"]].append(
                SplitEntry(name=name, defect_type=defect_types.get(name, ""))
            )
    if not any(sides.values()):
        raise InputError(f"{path}: names no image of {own}")
    method = {"name": "file", "file": path.name}
    return Split(
        layout=dataset.layout.name,
        method=method,
        train=tuple(sides["train"]),
        test=tuple(sides["test"]),
    )


def _grouped(grouping: SameWorkpiece | None) -> dict[str, Any]:
    return {"same_workpiece": asdict(grouping)} if grouping else {}


def _usable(dataset: Dataset) -> tuple[list[Item], list[LeftOut]]:
    usable, left_out = [], []
    for item in dataset.items:
        try:
            check_item(item, dataset.listing.rule)
            usable.append(item)
        except InputError as fault:
            left_out.append(
                LeftOut(name=item.name, reason=str(fault).replace(f"{dataset.root}/", ""))
            )
    if not usable:
        raise InputError(f"{dataset.root}: no image can be used; see defectrt data inspect")
    return usable, left_out


def _groups(items: Sequence[Item], grouping: SameWorkpiece | None) -> list[list[Item]]:
    """Groups of images that must not be parted: of one workpiece, or of the same content."""
    groups = grouping(items) if grouping else [[item] for item in items]
    by_content: dict[str, int] = {}
    joined: list[list[Item]] = []
    for group in groups:
        hashes = {sha256_of(item.path) for item in group}
        same = sorted({by_content[h] for h in hashes if h in by_content})
        target = same[0] if same else len(joined)
        if not same:
            joined.append([])
        for other in same[1:]:
            joined[target] += joined[other]
            joined[other] = []
            by_content |= {h: target for h, i in by_content.items() if i == other}
        joined[target] += group
        by_content |= dict.fromkeys(hashes, target)
    return [group for group in joined if group]


def _halves(groups: Sequence[Sequence[Item]], rng: np.random.Generator) -> list[int | str]:
    """For every group "train" or "test" if the layout has said so, or else 0 or 1.

    Largest groups first, each to the half that has fewer images of its type: both get as many
    of every type as can be.
    """
    side: list[int | str] = [_fixed(group) or 0 for group in groups]
    counts = [Counter[str](), Counter[str]()]
    order = rng.permutation(len(groups)).tolist()
    for i in sorted(order, key=lambda i: -len(groups[i])):
        if not isinstance(side[i], str):
            defect_types = Counter(item.defect_type for item in groups[i])
            main = min(
                defect_types,
                key=lambda defect_type: (
                    defect_type == GOOD,
                    -defect_types[defect_type],
                    defect_type,
                ),
            )
            half = min((0, 1), key=lambda h: (counts[h][main], counts[h].total()))
            side[i] = half
            counts[half] += defect_types
    return side


def _fixed(group: Sequence[Item]) -> str | None:
    """Where the layout's own subsets put a group of good images."""
    if any(item.defect_type == GOOD and item.subset in ("validation", "test") for item in group):
        return "test"
    return (
        "train"
        if all(item.defect_type == GOOD and item.subset == "train" for item in group)
        else None
    )


def _has(group: Sequence[Item], defect_type: str) -> bool:
    return any(item.defect_type == defect_type for item in group)


def _split(
    dataset: Dataset,
    method: dict[str, Any],
    items: Sequence[Item],
    train: Sequence[Item],
    left_out: Sequence[LeftOut],
) -> Split:
    """All ``items`` that are neither in ``train`` nor left out go to the other side."""
    names = {item.name for item in train}
    out = {entry.name for entry in left_out}
    test = [item for item in items if item.name not in names | out]
    return Split(
        layout=dataset.layout.name,
        method=method,
        train=tuple(map(_entry, sorted(train, key=lambda item: item.name))),
        test=tuple(map(_entry, test)),
        left_out=tuple(left_out),
    )


def _entry(item: Item) -> SplitEntry:
    return SplitEntry(name=item.name, defect_type=item.defect_type, sha256=sha256_of(item.path))


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
