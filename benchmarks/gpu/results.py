"""The file that every stage writes each result to, at once: one JSON object a line.

    {"stage": "timings", "key": "geglu 16x64x1280…", "p50_us": 81.2, …}   a result
    {"stage": "timings", "key": "geglu 16x64x1280…", "error": "…"}        what was not to be had
    {"stage": "timings", "key": "geglu 16x64x1280…", "begun": true}       about to be measured
    {"stage": "timings", "end": "done", "seconds": 41.0}                  of a stage's process

A key with a result or an error is finished: nothing measures it again, in this call or a later one
that is given the file. One that was begun and neither finished nor timed out has killed its
process.
"""

from __future__ import annotations

import json
import os
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from .conditions import conditions

FILE = "results.jsonl"


class DeviceLostError(Exception):
    """The GPU does not answer this process any more; another process may go on."""


def read(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a file, if there is one; a line that was cut off is left out."""
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue


class Results:
    """One stage's rows in the file at ``path``."""

    def __init__(self, path: Path, stage: str, healthy: Callable[[], None] | None = None) -> None:
        """``healthy`` raises where the device has failed; it is asked after every error."""
        self.path, self.stage, self._healthy = path, stage, healthy or (lambda: None)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """This stage's rows so far, whoever wrote them."""
        return [row for row in read(self.path) if row.get("stage") == self.stage]

    @property
    def finished(self) -> set[str]:
        """Keys that need no measuring."""
        return {row["key"] for row in self.rows if "key" in row and "begun" not in row}

    @property
    def open(self) -> str | None:
        """The key that was begun last, if it is not finished."""
        begun = [row["key"] for row in self.rows if "begun" in row]
        return begun[-1] if begun and begun[-1] not in self.finished else None

    @property
    def ended(self) -> str | None:
        """How the stage's last process ended."""
        ends = [row["end"] for row in self.rows if "end" in row]
        return ends[-1] if ends else None

    def write(self, row: dict[str, Any]) -> None:
        """Add a row; it is on the disk when this returns."""
        row = {"stage": self.stage} | row
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())
        if "begun" not in row:
            print(line(row), flush=True)

    def take(self, key: str, figures: Callable[[], dict[str, Any]]) -> None:
        """Write what ``figures`` returns under ``key``, or its error, unless that is finished.

        An error costs its row alone. Raises `DeviceLostError` where it cost the device too.
        """
        if key in self.finished:
            return
        self.write({"key": key, "begun": True})
        start = time.monotonic()
        try:
            row = figures()
        except Exception as error:
            traceback.print_exc()
            row = {"error": short(error)}
        row["took_s"] = round(time.monotonic() - start, 2)
        self.write({"key": key} | row | {"conditions": conditions()})
        if "error" in row:
            self._check()

    def _check(self) -> None:
        try:
            self._healthy()
        except Exception as error:
            raise DeviceLostError(short(error)) from error


def short(error: BaseException) -> str:
    """An exception in at most 500 characters."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]


def line(row: dict[str, Any]) -> str:
    """A row for the eye."""
    name = row.get("key") or f"stage {row.get('end', '')}"
    hidden = {"stage", "key", "end", "conditions"}
    return f"[{row['stage']}] {name}: " + _figures(
        {k: v for k, v in row.items() if k not in hidden}
    )


def _figures(row: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in row.items()
    )


def merge(path: Path, earlier: Iterable[Path]) -> None:
    """Begin the file with the rows of earlier calls, each row once."""
    kept = [json.dumps(row) for row in read(path)]
    rows = [json.dumps(row) for file in earlier for row in read(file)]
    lines = dict.fromkeys(rows + kept)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{x}\n" for x in lines), encoding="utf-8")
