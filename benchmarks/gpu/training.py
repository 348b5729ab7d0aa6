"""The last stage: six minutes of training a base for 256 px from the pictures carried along.

An autoencoder first, then the base (Eq. 2), by the recipe of the bundled engine. Every two minutes
the averaged weights come back in float16; a later call goes on from them, with a new optimiser.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from defectrt.errors import Cancelled
from defectrt.training.config import TrainConfig, load_config
from defectrt.training.data.samples import Sample, read_good, read_pairs
from defectrt.training.loop.checkpoint import latest
from defectrt.training.loop.train import train
from defectrt.training.models.stable_diffusion import (
    SIZES,
    StableDiffusion,
    hide_progress_bars,
    new_model,
    open_model,
)

from . import weights
from .stage import Context

RECIPE = Path(__file__).parents[2] / "examples" / "bundled_engine" / "gpu"
NAME = "base"
#: More steps than there is time for: the clock ends a part.
_ENDLESS = 10**8


@dataclass(frozen=True)
class Course:
    """How long, and with what.

    seconds  of training in all
    every    seconds between the weights that come back
    first    share of the time that the autoencoder has
    margin   seconds before the stage's end that are left for writing
    """

    size: str
    seconds: float
    every: float
    first: float = 1 / 3
    margin: float = 20.0


FULL = Course("surfaces-256", seconds=360, every=120)
TOY = Course("tiny", seconds=12, every=4, margin=5.0)


def run(context: Context) -> None:
    """A row every two minutes: steps, crops a second, losses, memory."""
    hide_progress_bars()
    course = TOY if context.toy else FULL
    earlier = sorted([*context.out.glob(f"{NAME}-*"), *context.before.glob(f"{NAME}-*")])
    with TemporaryDirectory() as folder:
        Training(context, course, samples(context.bundle / "images"), Path(folder)).run(earlier)


def samples(folder: Path) -> list[Sample]:
    """Good pictures in ``good``, every other folder a type of defect."""
    defects = sorted(path for path in folder.iterdir() if path.name != "good")
    found = [sample for path in defects for sample in read_pairs(path, path.name)]
    return read_good(folder / "good") + found


class Training:
    """One course, in parts that end with weights."""

    def __init__(
        self, context: Context, course: Course, samples: Sequence[Sample], folder: Path
    ) -> None:
        self.context, self.course, self.samples, self.folder = context, course, samples, folder

    def run(self, earlier: Sequence[Path]) -> None:
        """Train for as long as the course and the stage's time allow."""
        context, course = self.context, self.course
        total = min(course.seconds, context.left() - course.margin)
        if earlier:
            model, facts = weights.load(newest(earlier))
            first = 0.0 if facts["objective"] == "denoise" else course.first
        else:
            model = new_model(SIZES[course.size], prediction_type="v_prediction")
            first = course.first
        end = time.monotonic() + total
        if first:
            model = self.stage("autoencoder", model, time.monotonic() + first * total)
        self.stage("base", model, end)

    def stage(self, name: str, model: StableDiffusion, end: float) -> StableDiffusion:
        """Train one recipe until ``end``; the model as it is then."""
        config, made = self.config(name), self.folder / name / "model"
        while end - time.monotonic() > 1:
            seconds = min(self.course.every, end - time.monotonic())
            key = f"{name} {time.strftime('%H:%M:%S')}"
            self.context.results.take(key, partial(self.part, name, model, config, seconds))
            if not made.exists():
                break
        return open_model(made) if made.exists() else model

    def config(self, name: str) -> TrainConfig:
        """The recipe, without an end."""
        toy = {"window": None, "batch_size": 4, "precision": "float32"} if self.context.toy else {}
        own = {"steps": _ENDLESS, "cooldown": 0} | toy
        places = {"model": self.course.size, "out": str(self.folder / name)}
        return load_config(None, RECIPE / f"{name}.yaml", places | own)[1]

    def part(
        self, name: str, model: StableDiffusion, config: TrainConfig, seconds: float
    ) -> dict[str, Any]:
        """Train for that long, then bring the averaged weights back."""
        run, start = self.folder / name, time.monotonic()
        options: dict[str, Any] = {
            "device": self.context.device,
            "base_model": self.course.size,
            "checkpoint_every": _ENDLESS,
            "quiet": True,
        }
        begun = self.steps(run)
        resume = (run / "run.json").exists()
        with stopped_after(seconds), suppress(Cancelled):
            train(self.begin(model, name), self.samples, config, run, resume=resume, **options)
        trained, steps = time.monotonic() - start, self.steps(run)
        if steps == begun:
            raise RuntimeError(f"no step was finished in {trained:.0f} s")
        ended = config.model_copy(update={"steps": steps})
        train(self.begin(model, name), self.samples, ended, run, resume=True, **options)
        facts = {
            "size": self.course.size,
            "prediction_type": "v_prediction",
            "objective": config.objective,
            "steps": str(steps),
        }
        paths = weights.save(open_model(run / "model"), self.context.out, NAME, facts)
        return {
            "objective": config.objective,
            "steps": steps,
            "batch": config.batch_size,
            "steps_per_s": (steps - begun) / trained,
            "crops_per_s": config.batch_size * (steps - begun) / trained,
            "seconds": trained,
            "losses": last_losses(run / "log.jsonl"),
            "files": [path.name for path in paths],
        }

    def begin(self, model: StableDiffusion, name: str) -> StableDiffusion:
        """A fresh copy of what a recipe begins with: training changes what it is given."""
        place = self.folder / f"{name}-begin"
        if not place.exists():
            model.save(place)
        return open_model(place)

    @staticmethod
    def steps(run: Path) -> int:
        """Of the newest checkpoint."""
        found = latest(run / "checkpoints")
        return int(found.name) if found else 0


def last_losses(log: Path) -> dict[str, Any]:
    """The last line of a run's log; none in the first ten steps."""
    lines = log.read_text().splitlines() if log.exists() else []
    return json.loads(lines[-1]) if lines else {}


def newest(paths: Sequence[Path]) -> list[Path]:
    """The files of the folder that was written last."""
    folder = max(paths, key=lambda path: path.stat().st_mtime).parent
    return [path for path in paths if path.parent == folder]


@contextmanager
def stopped_after(seconds: float) -> Iterator[None]:
    """Ask this process to end after so long; what is asked too early or too late stops nothing.

    Training finishes the step at hand, saves, and raises `Cancelled`.
    """

    def early(*_: object) -> None:
        raise Cancelled("the time was over before training began")

    before = signal.signal(signal.SIGTERM, early)
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        signal.signal(signal.SIGTERM, before)
