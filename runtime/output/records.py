"""What a finished output folder says of itself; every writer of formats reads it from here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..files import leaves, open_file, parse_json, read_file
from ..images.types import MAX_BYTES, Mask
from ..masks.reading import mask_values, read_any_mask
from .instances import instances, with_level
from .journal import JOURNAL

__all__ = [
    "HEALTHY",
    "HEALTHY_LINES",
    "JOB",
    "MANIFEST",
    "REFUSED_LINES",
    "REQUESTED",
    "SHARD",
    "FinishedDataset",
    "KeptSample",
    "find_datasets",
    "kept_sample",
    "read_finished",
    "read_output",
]


#: What was asked for, and a line of each sample: together they tell a finished dataset.
JOB, MANIFEST = "job.json", "manifest.jsonl"
#: The folder of samples that were painted without a defect, and a line of each.
HEALTHY, HEALTHY_LINES = "healthy", "healthy.jsonl"
#: Of such a job, the samples that were asked for: it is finished once it has as many.
REQUESTED = "requested"
#: A line of each sample that a review took out.
REFUSED_LINES = "refused.jsonl"
#: Of a job that made a part of the images alone, which: I/N.
SHARD = "shard"

#: Of the job, and of a line.
_MAX_BYTES = 16 << 20
_TEXTS = ("image", "label", "good", "source", "defect")


@dataclass(frozen=True)
class KeptSample:
    """A kept sample.

    image, label, good   paths in the output folder, posix: the image with the defect, where
                         it is, and the image without
    mask                 where it was asked for; None in folders that do not hold it
    source               the path of the image it was made from
    defect               its defect type
    defects              those of its instances, in the order of their values in the mask
    record               its whole line of the manifest
    """

    image: str
    label: str
    good: str
    source: str
    defect: str
    defects: tuple[str, ...]
    mask: str | None
    record: dict[str, Any]


@dataclass(frozen=True)
class FinishedDataset:
    """A finished output folder.

    defect_types   that its engine makes, in the engine's order
    entries        kept samples, by the paths of their images
    healthy        lines of samples that were painted without a defect
    dropped        lines of samples that were made and not kept
    refused        lines of samples that a review took out
    failed         lines of samples that could not be made
    job            what was asked for
    """

    out: Path
    category: str
    defect_types: list[str]
    entries: list[KeptSample]
    healthy: list[dict[str, Any]]
    dropped: list[dict[str, Any]]
    refused: list[dict[str, Any]]
    failed: list[dict[str, Any]]
    job: dict[str, Any]

    def instances(self, entry: KeptSample) -> Iterator[tuple[int, Mask]]:
        """The instances [H,W] of a sample, and of each the place of its type in `defect_types`.

        Raises `InputError` if the type has none, or cannot be told from the mask.
        """
        label = self.label(entry)
        for index, part in enumerate(self._by_type(entry, label)):
            if entry.defects[index] not in self.defect_types:
                raise InputError(
                    f"{self.out}: {entry.image} is of a type that its engine does not make"
                )
            place = self.defect_types.index(entry.defects[index])
            yield from ((place, mask) for mask in instances(part))

    def _by_type(self, entry: KeptSample, label: Mask) -> list[Mask]:
        """The parts of a label that are of each type."""
        if len(entry.defects) == 1:
            return [label]
        levels = mask_values(self.out / str(entry.mask)).values if entry.mask else None
        if levels is None or levels.shape != label.shape:
            raise InputError(f"{self.out}: {entry.image} has no mask of its label's size")
        parts = [label & with_level(levels, i) for i in range(len(entry.defects))]
        whole = np.array_equal(np.logical_or.reduce(parts), label)
        if not whole or not all(part.any() for part in parts):
            raise InputError(f"{self.out / str(entry.mask)}: does not tell the types of its label")
        return parts

    def label(self, entry: KeptSample) -> Mask:
        """The label [H,W] of a sample, from its file: the one truth of every format."""
        return read_any_mask(self.out / entry.label)


def read_output(path: Path) -> bytes:
    """A file that a job wrote. Raises `InputError` if it is not there any more."""
    try:
        return read_file(path, MAX_BYTES)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); run the command that made it again"
        ) from error


def find_datasets(files: Iterable[Path]) -> set[Path]:
    """Folders that hold a dataset of this program, finished or begun, by files that are there."""
    holding: dict[str, set[Path]] = {JOURNAL: set(), JOB: set(), MANIFEST: set()}
    for path in files:
        holding.get(path.name, set()).add(path.parent)
    return holding[JOURNAL] | holding[JOB] & holding[MANIFEST]


def read_finished(out: Path) -> FinishedDataset:
    """Read the job and the manifest of ``out``.

    Raises `InputError` if they are missing or damaged, or name a file outside ``out``.
    """
    job = _read_job(out / JOB)
    entries = [kept_sample(r, where) for where, r in _lines(out / MANIFEST)]
    return FinishedDataset(
        out=out,
        category=job["category"],
        defect_types=job["defect_types"],
        entries=sorted(entries, key=lambda entry: entry.image),
        healthy=[_healthy(record, where) for where, record in _lines(out / HEALTHY_LINES)],
        dropped=[record for _, record in _lines(out / "dropped.jsonl")],
        refused=[record for _, record in _lines(out / REFUSED_LINES)],
        failed=[record for _, record in _lines(out / "failed.jsonl")],
        job=job,
    )


def _read_job(path: Path) -> dict[str, Any]:
    try:
        job = dict(parse_json(read_file(path, _MAX_BYTES)))
        if not isinstance(job["category"], str) or not isinstance(job["defect_types"], list):
            raise TypeError("a value of another type")
    except OSError as error:
        raise InputError(
            f"{path.parent}: not the output of a job ({path.name} is missing)"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: damaged ({error})") from error
    return job


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where each line of a file is, for messages, and what it says; nothing without the file."""
    if not path.exists():
        return
    with open_file(path) as file:
        for number, line in enumerate(iter(lambda: file.readline(_MAX_BYTES), b""), 1):
            where = f"{path}: line {number}"
            try:
                yield where, dict(parse_json(line))
            except (ValueError, TypeError) as error:
                raise InputError(f"{where} is damaged ({error})") from error


def kept_sample(record: dict[str, Any], where: str) -> KeptSample:
    """A sample by its line, which is ``where``. Raises `InputError` if that is damaged."""
    texts = {key: record.get(key) for key in _TEXTS}
    if wrong := [key for key, value in texts.items() if not isinstance(value, str)]:
        raise InputError(f"{where} has no {', '.join(wrong)}")
    mask = record.get("mask")
    if mask is not None and not isinstance(mask, str):
        raise InputError(f"{where}: mask is not a path")
    for key in ("image", "label", "good", "mask"):
        if leaves(str(record.get(key, ""))):
            raise InputError(f"{where}: {key} leaves the folder")
    paths = {key: str(value) for key, value in texts.items()}
    return KeptSample(**paths, defects=_defects(record, where), mask=mask, record=record)


def _healthy(record: dict[str, Any], where: str) -> dict[str, Any]:
    """A line of a sample without a defect. Raises `InputError` if it cannot be used."""
    for key in ("image", "good", "defect"):
        if not isinstance(record.get(key), str):
            raise InputError(f"{where} has no {key}")
    if any(leaves(record[key]) for key in ("image", "good")):
        raise InputError(f"{where}: a path leaves the folder")
    return record


def _defects(record: dict[str, Any], where: str) -> tuple[str, ...]:
    """The types of a sample's instances; without them, the sample's."""
    masks = record.get("masks", [])
    if not isinstance(masks, list) or not all(isinstance(mask, dict) for mask in masks):
        raise InputError(f"{where}: masks is not a list of what was asked for")
    found = tuple(dict.fromkeys(str(mask.get("defect", record["defect"])) for mask in masks))
    return found or (str(record["defect"]),)
