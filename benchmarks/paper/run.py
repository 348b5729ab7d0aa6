"""The whole, stage by stage: what is finished stays finished, and its rows are on the disk."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from defectrt.cores import cores
from defectrt.errors import InputError
from defectrt.files import unwritable, write_whole
from defectrt.training.threads import set_threads

from .config import PaperConfig
from .material import categories
from .rows import Row, write_rows
from .stages import stages
from .tables import tables

#: A line a finished stage; the rows of all of them, and the tables made of those.
STAGES, ROWS, TABLES, CONFIG = "stages.jsonl", "paper.csv", "paper.md", "config.json"


def run(config: PaperConfig, out: Path, *, quiet: bool = False) -> Path:
    """Do every stage that is not finished; returns ``out``/paper.csv.

    Tables are written anew after each. Raises `InputError` if ``out`` was begun with another
    configuration, and whatever a stage raises: `Cancelled` after Ctrl-C.
    """
    _claim(out, config)
    set_threads(config.threads)
    log = Log(out)
    todo = stages(categories(config, out), config, quiet=quiet)
    for number, stage in enumerate(todo, 1):
        if stage.name in log.finished:
            continue
        if not quiet:
            print(f"[{number}/{len(todo)}] {stage.name}", file=sys.stderr, flush=True)
        began = time.monotonic()
        rows = [replace(r, conditions=_conditions(config, r.dataset)) for r in stage.run()]
        log.add(stage.name, rows, time.monotonic() - began)
        write_rows(out / ROWS, log.rows)
        write_whole(out / TABLES, f"{tables(log.rows)}\n".encode())
    return out / ROWS


class Log:
    """stages.jsonl: the finished stages, their rows, and how long each took."""

    def __init__(self, out: Path) -> None:
        """Read what is there; a last line that was cut off is done again."""
        self._path = out / STAGES
        self.finished: dict[str, list[Row]] = {}
        lines = self._path.read_bytes() if self._path.is_file() else b""
        whole, _, rest = lines.rpartition(b"\n")
        if rest:
            write_whole(self._path, whole + b"\n" if whole else b"")
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                said = json.loads(line)
                self.finished[said["stage"]] = [Row(**row) for row in said["rows"]]
            except (ValueError, TypeError, KeyError) as error:
                raise InputError(f"{self._path}: line {number} is damaged ({error})") from error

    @property
    def rows(self) -> list[Row]:
        return [row for rows in self.finished.values() for row in rows]

    def add(self, stage: str, rows: Sequence[Row], seconds: float) -> None:
        """On the disk when this returns. Raises `OutputError`."""
        said = {"stage": stage, "seconds": round(seconds, 1), "rows": [asdict(r) for r in rows]}
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(said, allow_nan=False) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise unwritable(self._path, error) from error
        self.finished[stage] = list(rows)


def _claim(out: Path, config: PaperConfig) -> None:
    """Note the configuration, or see that it is the same; only speed may differ."""
    now = config.model_dump(mode="json", exclude={"threads", "device"})
    path = out / CONFIG
    before = json.loads(path.read_bytes()) if path.is_file() else now
    if changed := [key for key in now if before.get(key) != now[key]]:
        raise InputError(
            f"{out}: was begun with other {', '.join(changed)}; choose another OUT, or go back to "
            f"what {path} says"
        )
    write_whole(path, (json.dumps(now, indent=1) + "\n").encode())


def _conditions(config: PaperConfig, dataset: str) -> str:
    """What figures depend on, beside the data."""
    steps = config.datasets[dataset].steps or config.steps
    detector = config.proving(synthetic=("made",))
    shots = f"{config.shots} shots a type" if config.shots else "all of a side as shots"
    how, plane = config.synthesis, config.landscape
    return (
        f"{dataset}: {config.model or 'bundled base'}; {shots}; {steps} steps of fine-tuning; "
        f"{config.instances} made a type, background {how.background}, "
        f"{how.steps or 'default'} diffusion steps, label by {how.refine}; "
        f"{detector.seeds} trainings of each detector a fold, {detector.steps} steps at most; "
        f"landscape of {plane.points} x {plane.points} points to ±{plane.span:g}, "
        f"{plane.rows} crops; seed {config.seed}; "
        f"{cores()} cores"
    )
