"""Samples that a review took out: their files lie apart, so that nothing but a move is needed."""

from __future__ import annotations

import json
from pathlib import Path

from ..files import write_lines
from .journal import Journal, JournalEntry
from .records import REFUSED_LINES

__all__ = ["REFUSED", "file_of", "write_refused"]

#: The folder in OUT that holds them, under the paths that they had.
REFUSED = "refused"


def file_of(entry: JournalEntry, name: str) -> str:
    """Where a file of a sample lies in OUT; a good image stays where others use it too."""
    moved = entry.state == "refused" and name != entry.record.get("good")
    return f"{REFUSED}/{name}" if moved else name


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
