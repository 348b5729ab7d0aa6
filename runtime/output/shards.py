"""Shards of one job, joined: what the job would have made in one run."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import write_whole
from .dataset import DatasetWriter
from .journal import JOURNAL, JournalEntry, asked_types, read_entries
from .records import REQUESTED, SHARD, FinishedDataset, read_output
from .refused import file_of

__all__ = ["Shards"]

_SHARD = re.compile(r"([0-9]{1,7})/([0-9]{1,7})")


class Shards:
    """All shards of a job.

    Files keep their names, since these depend on an image's place among all images, and so do the
    journals' entries; joined in their order, they are the journal of the whole.
    """

    def __init__(self, datasets: Sequence[FinishedDataset]) -> None:
        """Raises `InputError` unless they are all shards of one job, each once and whole."""
        self._job = _one_job(datasets)
        _check_complete(datasets)
        self._entries = sorted(
            ((entry, dataset.out) for dataset in datasets for entry in _entries(dataset)),
            key=lambda pair: (pair[0].image, pair[0].number, pair[0].defect),
        )

    @property
    def kept(self) -> int:
        """Samples in the new folder."""
        return sum(entry.state == "kept" for entry, _ in self._entries)

    def write(self, out: Path) -> None:
        """Copy the files, and write the journal and what follows from it."""
        types = asked_types(self._job, out)
        writer = DatasetWriter(out, self._job["category"], types, self._job)
        with writer:
            for entry, folder in self._entries:
                for name, sha256 in entry.files.items():
                    place = file_of(entry, name)
                    if entry.state == "refused" and not (folder / place).exists():
                        continue  # nobody needs it
                    _copy(folder / place, out / place, sha256)
            writer.journal.settle(*(entry for entry, _ in self._entries))
            writer.finish()


def _one_job(datasets: Sequence[FinishedDataset]) -> dict[str, Any]:
    """What all of them say of their job, but for the shard."""
    own = (SHARD, REQUESTED)
    first, *others = ({k: v for k, v in d.job.items() if k not in own} for d in datasets)
    for dataset, other in zip(datasets[1:], others, strict=True):
        differs = sorted(k for k in first.keys() | other.keys() if first.get(k) != other.get(k))
        if differs:
            raise InputError(
                f"{dataset.out}: not a shard of the job of {datasets[0].out}; they differ in "
                f"{', '.join(differs)}"
            )
    return first


def _check_complete(datasets: Sequence[FinishedDataset]) -> None:
    found: dict[tuple[int, int], Path] = {}
    for dataset in datasets:
        shard = _shard_of(dataset)
        if shard in found:
            said = "/".join(map(str, shard))
            raise InputError(f"{dataset.out} and {found[shard]}: both are shard {said}")
        found[shard] = dataset.out
    (_, total), *_ = found
    if strange := [out for (_, of), out in found.items() if of != total]:
        raise InputError(f"{strange[0]}: not of {total} shards, as {datasets[0].out} is")
    missing = [f"{part}/{total}" for part in range(1, total + 1) if (part, total) not in found]
    if missing:
        raise InputError(f"shard {', '.join(missing)}: missing; make it, or give its folder too")


def _shard_of(dataset: FinishedDataset) -> tuple[int, int]:
    shard = dataset.job.get(SHARD)
    if shard is None:
        raise InputError(f"{dataset.out}: not a shard, but others are; merge these first")
    found = _SHARD.fullmatch(str(shard))
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise InputError(f"{dataset.out}: says that it is shard {shard!r}, which is none")
    return int(found[1]), int(found[2])


def _entries(dataset: FinishedDataset) -> list[JournalEntry]:
    entries = read_entries(dataset.out / JOURNAL)
    kept = sum(entry.state == "kept" for entry in entries)
    if kept != len(dataset.entries) or len(entries) != dataset.job.get(REQUESTED):
        raise InputError(f"{dataset.out}: not finished; run its command again")
    return entries


def _copy(source: Path, target: Path, sha256: str) -> None:
    """A file as it was written; a good image that several samples share is copied once."""
    if target.exists():
        return
    data = read_output(source)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise InputError(f"{source}: was changed since it was made; run its command again")
    write_whole(target, data)
