"""Several finished datasets as one: `merge`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from ..config.job import Format
from ..config.names import checked_category
from ..errors import OutputError, UsageError
from ..files import write_directory, write_lines, write_whole
from .dataset import split_of_good
from .formats import finish
from .records import (
    HEALTHY,
    HEALTHY_LINES,
    JOB,
    MANIFEST,
    SHARD,
    FinishedDataset,
    KeptSample,
    read_finished,
    read_output,
)
from .shards import Shards
from .split import Splitting

__all__ = ["merge"]

_ADVICE = "run the same command again"


def merge(
    folders: Iterable[str | PathLike[str]],
    out: str | PathLike[str],
    *,
    category: str | None = None,
    formats: Sequence[Format] = ("mvtec",),
    splitting: Splitting | None = None,
) -> int:
    """Join finished datasets to a new one in ``out``; returns the samples that it holds.

    Samples and good images are numbered anew, in the order of ``folders``; what is there twice,
    byte for byte, is taken once. The defect types are those of the first folder's engine, in its
    order, and then what others have besides, and so are the category ids of COCO and YOLO.
    ``category`` is needed if the folders' differ. ``out`` is there whole or not at all; to go on
    with a job, go on in its own folder.

    All shards of one job become what that job would have made in one run, byte for byte; it can go
    on there.

    Raises `UsageError` for less than two folders or one given twice, and for a category that is
    not possible; `InputError` for folders that are no finished datasets, or not whole, and for
    shards of which one is missing; `OutputError` if ``out`` is not empty or cannot be written.
    """
    paths, out = [Path(folder) for folder in folders], Path(out)
    if len({path.resolve() for path in paths}) < max(2, len(paths)):
        raise UsageError("give two or more folders, each once")
    datasets = [read_finished(path) for path in paths]
    shards = any(SHARD in dataset.job for dataset in datasets)
    if shards and category:
        raise UsageError("category: shards have theirs")
    category = _category(datasets, category)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out}: not empty; choose another --out")
    merged = Shards(datasets) if shards else _Merged(datasets, category)

    def write(partial: Path) -> None:
        merged.write(partial)
        finish(partial, formats, splitting=splitting)

    write_directory(out, write, advice=_ADVICE)
    return merged.kept


def _category(datasets: Sequence[FinishedDataset], wanted: str | None) -> str:
    found = list(dict.fromkeys(dataset.category for dataset in datasets))
    if wanted is None and len(found) > 1:
        raise UsageError(f"the categories differ ({', '.join(found)}); choose one with --category")
    try:
        return checked_category(wanted or found[0])
    except ValueError as fault:
        raise UsageError(f"category: {fault}") from None


class _Merged:
    """What goes into the new folder: files by where they come from, and lines of samples.

    lines   of the kept samples, with their new paths
    """

    def __init__(self, datasets: Sequence[FinishedDataset], category: str) -> None:
        self._datasets, self._category = datasets, category
        self._files: dict[str, Path] = {}
        self._goods: dict[str, str] = {}
        self.lines: list[dict[str, Any]] = []
        samples = _distinct(datasets)
        self._digits = max(3, len(str(len(samples) - 1)))
        for dataset, entry in samples:
            self.lines.append(self._add(dataset, entry))
        self._healthy = [
            self._add_healthy(dataset.out, record, str(number).zfill(self._digits))
            for number, (dataset, record) in enumerate(
                (dataset, record) for dataset in datasets for record in dataset.healthy
            )
        ]

    @property
    def kept(self) -> int:
        """Samples in the new folder."""
        return len(self.lines)

    def write(self, out: Path) -> None:
        """Copy the files, and write the lines and the job."""
        for name, path in self._files.items():
            write_whole(out / name, read_output(path), advice=_ADVICE)
        types = dict.fromkeys(t for dataset in self._datasets for t in dataset.defect_types)
        job = {
            "category": self._category,
            "defect_types": list(types),
            "provider": ", ".join(dict.fromkeys(d.job.get("provider", "") for d in self._datasets)),
            "merged": [dataset.job for dataset in self._datasets],
        }
        write_whole(out / JOB, (json.dumps(job, indent=1) + "\n").encode(), advice=_ADVICE)
        dropped = (line for dataset in self._datasets for line in dataset.dropped)
        failed = (line for dataset in self._datasets for line in dataset.failed)
        lines: dict[str, Iterable[dict[str, Any]]]
        lines = {MANIFEST: self.lines, "dropped.jsonl": dropped, "failed.jsonl": failed}
        if self._healthy:
            lines[HEALTHY_LINES] = self._healthy
        for name, records in lines.items():
            encoded = (json.dumps(record).encode() + b"\n" for record in records)
            write_lines(out / name, encoded, advice=_ADVICE)

    def _add(self, dataset: FinishedDataset, entry: KeptSample) -> dict[str, Any]:
        """A sample's line, and its files."""
        name = str(len(self.lines)).zfill(self._digits)
        base, defect = self._category, entry.defect
        paths = {
            "image": f"{base}/test/{defect}/{name}.png",
            "label": f"{base}/ground_truth/{defect}/{name}_mask.png",
        }
        if entry.mask:
            paths["mask"] = f"masks/{defect}/{name}.png"
        self._files |= {new: dataset.out / entry.record[key] for key, new in paths.items()}
        return entry.record | paths | {"good": self._good(dataset.out / entry.good)}

    def _add_healthy(self, out: Path, record: dict[str, Any], name: str) -> dict[str, Any]:
        new = f"{HEALTHY}/{record['defect']}/{name}.png"
        self._files[new] = out / record["image"]
        own = {"image": new, "good": self._good(out / record["good"])}
        return record | own

    def _good(self, path: Path) -> str:
        """The place of a good image, new unless it was there before."""
        sha256 = _sha256(path)
        if sha256 not in self._goods:
            index = len(self._goods)
            name = str(index).zfill(self._digits)
            new = f"{self._category}/{split_of_good(index)}/good/{name}.png"
            self._goods[sha256], self._files[new] = new, path
        return self._goods[sha256]


def _distinct(datasets: Sequence[FinishedDataset]) -> list[tuple[FinishedDataset, KeptSample]]:
    """Samples in the order of the datasets, each once."""
    found: dict[tuple[str, ...], tuple[FinishedDataset, KeptSample]] = {}
    for dataset in datasets:
        for entry in dataset.entries:
            files = (_sha256(dataset.out / path) for path in (entry.image, entry.label))
            found.setdefault((entry.defect, *files), (dataset, entry))
    return list(found.values())


def _sha256(path: Path) -> str:
    return hashlib.sha256(read_output(path)).hexdigest()
