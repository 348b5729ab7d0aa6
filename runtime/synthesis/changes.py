"""What was changed since a job made its samples: images, masks and regions, by their content."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

from ..config.job import JobConfig
from ..errors import InputError
from ..files import sha256_of
from ..output.dataset import DatasetWriter
from ..output.journal import JournalEntry

__all__ = ["check_unchanged"]

#: Names that a refusal lists.
_NAMED = 3


def check_unchanged(config: JobConfig, writer: DatasetWriter, *, redo: bool = False) -> None:
    """Compare the files that decided the settled samples of a job with what is there now.

    Told to ``redo``, it removes the samples of files that differ, so that they are made again;
    else it raises `InputError` with the names of those files.
    """
    now, differing = cache(_sha256), dict[Path, None]()
    for state in ("kept", "healthy", "dropped"):
        stale = []
        for entry in writer.journal.entries(state):
            files = [path for path, sha256 in _files(config, entry) if now(path) != sha256]
            differing |= dict.fromkeys(files)
            stale += [entry] if files else []
        for entry in stale if redo else ():
            writer.remove(entry)
    if differing and not redo:
        names = ", ".join(map(str, list(differing)[:_NAMED]))
        more = f" and {len(differing) - _NAMED} more" if len(differing) > _NAMED else ""
        raise InputError(
            f"{names}{more}: changed since samples were made with it; --redo makes those again, "
            "or choose another --out"
        )


def _files(config: JobConfig, entry: JournalEntry) -> Iterator[tuple[Path, str]]:
    """Every file that decided a sample and no other, and the hash that it had."""
    folder = config.images if config.images.is_dir() else config.images.parent
    yield folder / entry.source, entry.record["source_sha256"]
    for mask in entry.record["masks"]:
        if mask["from"] == "folder" and config.masks:
            yield config.masks / mask["file"], mask["sha256"]
        within = mask.get("within", {})
        if within.get("from") == "regions" and config.within:
            folder = config.within if config.within.is_dir() else config.within.parent
            yield folder / within["file"], within["sha256"]


def _sha256(path: Path) -> str | None:
    """Of a file that may be gone."""
    return sha256_of(path) if path.is_file() else None
