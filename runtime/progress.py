"""Progress that respects eyes and pipes: a bar on a terminal, one line per 10 % elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar

__all__ = ["Progress"]


class Progress:
    """Shows how far a job of ``total`` steps is, with its present figures.

    On a terminal a bar with the time left; otherwise one plain line per 10 %; nothing if
    ``quiet``. Writes to ``stream``, standard error by default: standard output is for results.
    """

    def __init__(
        self, total: int, label: str, *, quiet: bool = False, stream: TextIO | None = None
    ) -> None:
        """Nothing is shown before the block is entered."""
        self._total, self._label, self._quiet = total, label, quiet
        self._stream = stream or sys.stderr
        self._tenth = -1
        self._bar = self._make_bar() if not quiet and self._stream.isatty() else None

    def _make_bar(self) -> Bar:
        return Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
            # a bar drives the terminal itself; whatever else is printed is escaped
            console=Console(file=getattr(self._stream, "inner", self._stream)),
        )

    def __enter__(self) -> Progress:
        """Show the bar."""
        if self._bar:
            self._bar.start()
            self._task = self._bar.add_task(self._label, total=self._total, figures="")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the bar as it stands."""
        if self._bar:
            self._bar.stop()

    def update(self, done: int, **figures: float | str) -> None:
        """``done`` of the total are finished; ``figures`` are shown by name."""
        text = " ".join(f"{name} {_short(value)}" for name, value in figures.items())
        if self._bar:
            self._bar.update(self._task, completed=done, figures=text)
        elif not self._quiet and (tenth := 10 * done // max(1, self._total)) > self._tenth:
            self._tenth = tenth
            line = f"{self._label} {done}/{self._total} {text}".rstrip()
            print(line, file=self._stream, flush=True)


def _short(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"
