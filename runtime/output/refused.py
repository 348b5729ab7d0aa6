"""Samples that a review took out: their files lie apart, so that nothing but a move is needed."""

from __future__ import annotations

import json
from pathlib import Path

from ..errors import InputError, OutputError
from ..files import write_lines
from .journal import Journal, JournalEntry
from .records import REFUSED_LINES

__all__ = ["bring_back", "check_there", "file_of", "set_apart", "write_refused"]

#: The folder in OUT that holds them, under the paths that they had.
REFUSED = "refused"
#: Files of a sample that move with it.
_FILES = ("image", "label", "mask")


def file_of(entry: JournalEntry, name: str) -> str:
    """Where a file of a sample lies in OUT; a good image stays where others use it too."""
    moved = entry.state == "refused" and name != entry.record.get("good")
    return f"{REFUSED}/{name}" if moved else name


def set_apart(out: Path, entry: JournalEntry) -> None:
    """Move a sample's files out of the dataset; what lies there already stays."""
    for key in _FILES:
        if name := entry.record.get(key):
            _move(out / name, out / REFUSED / name)


def bring_back(out: Path, entry: JournalEntry) -> None:
    """Move a sample's files back to where they were."""
    for key in _FILES:
        if name := entry.record.get(key):
            _move(out / REFUSED / name, out / name)


def check_there(out: Path, entry: JournalEntry) -> None:
    """Raise `InputError` if files of a sample are gone, so that it cannot come back."""
    for key in _FILES:
        name = entry.record.get(key)
        if name and not any((out / place).is_file() for place in (name, f"{REFUSED}/{name}")):
            raise InputError(f"{out / REFUSED / name}: gone, so the sample cannot come back")


def _move(source: Path, target: Path) -> None:
    if not source.exists():
        return
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        source.replace(target)
    except OSError as error:
        raise OutputError(f"{source}: cannot be moved to {target} ({error.strerror})") from error


def write_refused(out: Path, journal: Journal) -> None:
    """A line for each, with who refused it and why; no file where there are none."""
    lines = [
        json.dumps(e.record | {"reason": e.reason}).encode() + b"\n"
        for e in journal.entries("refused")
    ]
    if lines:
        write_lines(out / REFUSED_LINES, lines)
    else:
        (out / REFUSED_LINES).unlink(missing_ok=True)
