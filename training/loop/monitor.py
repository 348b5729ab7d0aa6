"""How a run is doing: its losses, speed, memory and the time left."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray

from defectrt.extras import requires
from defectrt.files import unwritable, write_whole

from ..record import RESUME, read_record

__all__ = ["Log"]


class Log:
    """``log.jsonl``: a line every ten steps with the mean losses, speed and memory.

    The same numbers go to ``tensorboard/`` if that is wanted and tensorboard is installed, and to
    MLflow if that is wanted.
    """

    def __init__(
        self,
        run: Path,
        step: int,
        steps: int,
        *,
        tensorboard: bool = False,
        mlflow: bool = False,
        every: int = 10,
    ) -> None:
        """Go on after ``step`` of ``steps``; lines of later steps are going to be repeated.

        Raises `MissingExtraError` if MLflow is wanted and not installed.
        """
        self._path, self._steps, self._every = run / "log.jsonl", steps, every
        self._start, self._first = monotonic(), step
        self._sums: dict[str, float] = {}
        self._summed = 0
        self._drop_after(step)
        boards = [
            _board(run / "tensorboard", step) if tensorboard else None,
            _MLflow(run) if mlflow else None,
        ]
        self._boards = [board for board in boards if board]

    def _drop_after(self, step: int) -> None:
        if not self._path.exists():
            return
        lines = self._path.read_bytes().splitlines(keepends=True)
        kept = [line for line in lines if _step_of(line) <= step]
        write_whole(self._path, b"".join(kept), advice=RESUME)

    def add(self, step: int, losses: dict[str, float], crops: int) -> dict[str, float | str]:
        """Take the losses of ``step`` on ``crops`` crops; returns the figures to show."""
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._summed += 1
        seconds = (monotonic() - self._start) / (step - self._first)
        speed, memory = crops / max(seconds, 1e-9), _memory_gb()
        if step % self._every == 0:
            means = {name: value / self._summed for name, value in self._sums.items()}
            self.write(step, means | {"crops_per_s": round(speed, 3), "memory_gb": memory})
            self._sums, self._summed = {}, 0
        left = (self._steps - step) * seconds
        return {**losses, "crops/s": speed, "memory": f"{memory} GB", "left": _clock(left)}

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time that does not count as training."""
        start = monotonic()
        yield
        self._start += monotonic() - start

    def write(
        self, step: int, figures: dict[str, Any], image: NDArray[np.uint8] | None = None
    ) -> None:
        """One line, at once on its way to the disk."""
        try:
            with self._path.open("a") as file:
                file.write(json.dumps({"step": step} | figures) + "\n")
        except OSError as error:
            raise unwritable(self._path, error, RESUME) from error
        for board in self._boards:
            for name, value in figures.items():
                if isinstance(value, int | float):
                    board.add_scalar(name, value, step)
            if image is not None:
                board.add_image("preview", image, step, dataformats="HWC")

    def __enter__(self) -> Log:
        """Nothing to open."""
        return self

    def __exit__(self, *_: object) -> None:
        """End what TensorBoard and MLflow keep."""
        for board in self._boards:
            board.close()


def _step_of(line: bytes) -> float:
    """The step of a line; one that a kill tore in two belongs to no step that is kept."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")


def _board(directory: Path, step: int) -> Any:
    if find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(directory), purge_step=step + 1)


class _MLflow:
    """A run of MLflow, where its own settings say; called as TensorBoard's writer is.

    A resumed run goes on in the same one, whose number is in ``mlflow.txt``.
    """

    def __init__(self, run: Path) -> None:
        with requires("mlflow"):
            import mlflow
        self._mlflow, known = mlflow, run / "mlflow.txt"
        number = known.read_text().strip() if known.is_file() else None
        started = mlflow.start_run(run_id=number, run_name=None if number else run.name)
        if number is None:
            write_whole(known, started.info.run_id.encode() + b"\n", advice=RESUME)
            mlflow.log_params(read_record(run).config)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self._mlflow.log_metric(name, value, step=step)

    def add_image(
        self, name: str, image: NDArray[np.uint8], step: int, *, dataformats: str
    ) -> None:
        self._mlflow.log_image(image, key=name, step=step)

    def close(self) -> None:
        self._mlflow.end_run()


def _memory_gb() -> float:
    """The largest allocation so far on the GPU, or what the process holds now."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return round(torch.cuda.max_memory_allocated() / 1e9, 2)
    return round(psutil.Process().memory_info().rss / 1e9, 2)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
