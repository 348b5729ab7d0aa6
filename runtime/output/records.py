"""What a finished output folder says of itself; every writer of formats reads it from here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import InputError
from ..files import open_file, parse_json, read_file
from ..images.types import Mask
from ..masks.reading import read_any_mask
from .journal import JOURNAL

__all__ = [
    "JOB",
    "MANIFEST",
    "FinishedDataset",
    "KeptSample",
    "find_datasets",
    "read_finished",
]


#: What was asked for, and a line of each sample: together they tell a finished dataset.
JOB, MANIFEST = "job.json", "manifest.jsonl"

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
    record               its whole line of the manifest
    """

    image: str
    label: str
    good: str
    source: str
    defect: str
    mask: str | None
    record: dict[str, Any]


@dataclass(frozen=True)
class FinishedDataset:
    """A finished output folder.

    defect_types   that its engine makes, in the engine's order
    entries        kept samples, by the paths of their images
    dropped        lines of samples that were made and not kept
    failed         lines of samples that could not be made
    job            what was asked for
    """

    out: Path
    category: str
    defect_types: list[str]
    entries: list[KeptSample]
    dropped: list[dict[str, Any]]
    failed: list[dict[str, Any]]
    job: dict[str, Any]

    def index_of_type(self, entry: KeptSample) -> int:
        """The place of a sample's type in `defect_types`. Raises `InputError` if it has none."""
        if entry.defect not in self.defect_types:
            raise InputError(
                f"{self.out}: {entry.image} is of a type that its engine does not make"
            )
        return self.defect_types.index(entry.defect)

    def label(self, entry: KeptSample) -> Mask:
        """The label [H,W] of a sample, from its file: the one truth of every format."""
        return read_any_mask(self.out / entry.label)


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
    entries = [_entry(r, where) for where, r in _lines(out / MANIFEST)]
    return FinishedDataset(
        out=out,
        category=job["category"],
        defect_types=job["defect_types"],
        entries=sorted(entries, key=lambda entry: entry.image),
        dropped=[record for _, record in _lines(out / "dropped.jsonl")],
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


def _entry(record: dict[str, Any], where: str) -> KeptSample:
    texts = {key: record.get(key) for key in _TEXTS}
    if wrong := [key for key, value in texts.items() if not isinstance(value, str)]:
        raise InputError(f"{where} has no {', '.join(wrong)}")
    mask = record.get("mask")
    if mask is not None and not isinstance(mask, str):
        raise InputError(f"{where}: mask is not a path")
    for key in ("image", "label", "good", "mask"):
        path = PurePosixPath(str(record.get(key, "")))
        if path.is_absolute() or ".." in path.parts or {"\\", ":"} & set(str(path)):
            raise InputError(f"{where}: {key} leaves the folder")
    return KeptSample(**{key: str(value) for key, value in texts.items()}, mask=mask, record=record)
