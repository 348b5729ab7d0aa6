"""``runs.jsonl``: a line a finished training, under the hash of all that went into it."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from defectrt.errors import InputError
from defectrt.files import unwritable, write_whole

from .figures import Tally

__all__ = ["RUNS", "Run", "Runs", "key_of"]

RUNS, _SCORES = "runs.jsonl", "scores"


def key_of(parts: Mapping[str, Any]) -> str:
    """SHA-256 of everything that went in, as JSON with sorted keys."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Run:
    """A finished training.

    key      hash of all that went in
    steps    it was trained for; 0: by a command
    held_out pixel AP of held-out training pictures by step
    figures  on the test side, by name
    """

    key: str
    arm: str
    split: int
    seed: int
    steps: int
    seconds: float
    held_out: tuple[tuple[int, float], ...]
    figures: dict[str, float | None]


class Runs:
    """The trainings that are finished in a folder; a line is written when its scores are on disk.

    A last line that is not whole was being written when the program was killed, and is cut off.
    """

    def __init__(self, out: Path) -> None:
        """Read what is there. Raises `InputError` if a line that is whole is damaged."""
        self._path, self._scores = out / RUNS, out / _SCORES
        self._found: dict[str, Run] = {}
        self._lock = threading.Lock()
        if not self._path.is_file():
            return
        whole, _, rest = self._path.read_bytes().rpartition(b"\n")
        if rest:
            write_whole(self._path, whole + b"\n" if whole else b"")
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                run = Run(**json.loads(line))
            except (ValueError, TypeError) as error:
                raise InputError(
                    f"{self._path}: line {number} is damaged ({error}); remove the line"
                ) from error
            self._found[run.key] = run

    def get(self, key: str) -> Run | None:
        """The training with that key, if it is finished and its scores are there."""
        return self._found.get(key) if self._file(key).is_file() else None

    def tally(self, key: str) -> Tally:
        """What its detector said of the test side."""
        with np.load(self._file(key), allow_pickle=False) as stored:
            return Tally(stored["image"], stored["negative"], stored["positive"])

    def add(self, run: Run, tally: Tally) -> None:
        """Write the scores, then the line; from any thread. Raises `OutputError`."""
        write_whole(self._file(run.key), _npz(tally))
        line = json.dumps(asdict(run), allow_nan=False) + "\n"
        with self._lock:
            self._append(line.encode())
            self._found[run.key] = run

    def _append(self, line: bytes) -> None:
        try:
            with self._path.open("ab") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise unwritable(self._path, error) from error

    def _file(self, key: str) -> Path:
        return self._scores / f"{key[:32]}.npz"


def _npz(tally: Tally) -> bytes:
    arrays: dict[str, Any] = {
        "image": tally.image,
        "negative": tally.negative.astype(np.uint32),
        "positive": tally.positive.astype(np.uint32),
    }
    np.savez_compressed(data := BytesIO(), **arrays)
    return data.getvalue()
