"""What a running or finished command left on disk for the page to show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from defectrt.errors import InputError
from defectrt.files import parse_json, read_file

from .tasks import Task

__all__ = ["learning", "shown_file"]

_MAX_BYTES = 64 << 20
#: Figures of a training's log that are no losses.
_NO_LOSSES = {"step", "crops_per_s", "memory_gb", "preview", "outside_error", "defects_shown"}
#: Points of a curve that are sent.
_POINTS = 400


def learning(task: Task) -> dict[str, Any]:
    """The curves of a learning task, each a list of [step, loss], and which pictures there are."""
    run = _run_of(task)
    curves: dict[str, list[list[float]]] = {}
    for line in _lines(run / "log.jsonl"):
        for name in line.keys() - _NO_LOSSES:
            if isinstance(line[name], int | float):
                curves.setdefault(name, []).append([line["step"], line[name]])
    preview = _preview(run)
    held_out = [[line["step"], line["loss"]] for line in _lines(run / "held_out.jsonl")]
    return {
        "curves": {name: points[-_POINTS:] for name, points in sorted(curves.items())},
        "held_out": held_out,
        "preview": preview.name if preview else "",
        "sheet": (run / "sheet.png").is_file(),
    }


def shown_file(task: Task, what: str) -> tuple[bytes, str]:
    """A preview, the sheet or the certificate of a task, and its kind.

    Raises `InputError` if there is none.
    """
    run = _run_of(task)
    paths = {
        ("learn", "preview"): (_preview(run), "image/png"),
        ("learn", "sheet"): (run / "sheet.png", "image/png"),
        ("prove", "report"): (Path(task.out) / "report.html", "text/html"),
    }
    path, kind = paths.get((task.kind, what), (None, ""))
    if path is None or not path.is_file():
        raise InputError(f"{task.title}: there is no {what} yet")
    return read_file(path, _MAX_BYTES), kind


def _run_of(task: Task) -> Path:
    return Path(f"{task.out}-run")


def _preview(run: Path) -> Path | None:
    return max(run.glob("previews/*.png"), default=None)


def _lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a file that a process is writing; one that is not whole yet is left out."""
    if not path.is_file():
        return []
    found = []
    for line in read_file(path, _MAX_BYTES).splitlines():
        try:
            found.append(dict(parse_json(line)))
        except (ValueError, TypeError):
            continue
    return found
