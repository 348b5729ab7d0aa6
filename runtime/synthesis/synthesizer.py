"""Defects on arrays, without files: for programs that have their images in memory.

with defectrt.Synthesizer(job=Job(defect="scratch")) as synthesizer:
    result = synthesizer(image, mask)
    for result in synthesizer.run(images):
        train(result.image, result.label)
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..closing import Closing
from ..config.masks import Masks
from ..config.synthesis import Job
from ..diffusion.rows import Floats, Rows
from ..engines.engine import Engine, cores
from ..engines.loading import BUNDLED_ENGINE, load_engine
from ..engines.manifest import Manifest
from ..errors import Cancelled, EngineError, InputError
from ..images.types import MAX_PIXELS, Bits, Mask
from ..masks.source import MaskSource
from .pipeline import Good, Pipeline, Sample
from .scheduler import Call, Scheduler, Task, Work

__all__ = ["Part", "Result", "State", "Synthesizer"]


@dataclass(frozen=True)
class Part:
    """A good image, and where it may get a defect.

    image   [H,W] or [H,W,C], uint8 or uint16; C is 1 grey, 2 grey + alpha, 3 RGB, 4 RGB + alpha
    mask      [H,W], any value but 0 is defect; without it, one that suits the defect type is drawn
    name      decides the noise, together with the job's seed and the sample's number
    """

    image: Bits
    mask: ArrayLike | None = None
    name: str = ""


@dataclass(frozen=True)
class Result:
    """An image with a defect.

    name, number   of the part, and of the sample among the part's
    seed           the sample's own; with the image and the mask it makes the sample again
    image        of the part's shape and type; the part's own bits outside the band
    label          [H,W], where the defect is
    mask           [H,W], where it was asked for
    band           [H,W], where the image may differ from the part's
    figures        see `defectrt.synthesis.pipeline.Pipeline.sample`
    fault          why there is no defect, if so; the image is the part's then
    """

    name: str
    number: int
    seed: int
    image: Bits
    label: Mask
    mask: Mask
    band: Mask
    figures: dict[str, Any]
    fault: str | None


@dataclass(frozen=True)
class State:
    """How far a run is.

    done    samples that are finished
    total   samples that were asked for; None while the parts have no length
    steps   rows that went through the engine's row step so far
    """

    done: int
    total: int | None
    steps: int


class Synthesizer(Closing):
    """An engine, open and set up for a job; puts defects into arrays.

    Several threads may use it at once. A result depends on its part, its number, the engine and
    the job alone: not on what else is made, nor in what order.
    """

    def __init__(
        self,
        engine: str | Path | None = None,
        job: Job | None = None,
        *,
        masks: Masks | MaskSource | None = None,
        threads: int | None = None,
        provider: str | None = None,
        trust: str | None = None,
    ) -> None:
        """Verify and open an engine, by default the bundled one.

        masks     where parts without a mask get theirs, and where they may lie; by default they
                  are drawn anywhere; or any function of your own with the form of a `MaskSource`
        threads   of the CPU; all by default
        provider  what an ONNX engine runs on: cpu (the default), cuda, tensorrt, tensorrt-rtx,
                  openvino, or auto for the fastest here
        trust     fingerprints of engines that may run though they are machine code: all but ONNX

        Raises `EngineError` for an engine that is damaged or not trusted or a provider that does
        not take it, and `UsageError` for a type of defect or a number of steps that it does not
        have.
        """
        self.job = job or Job()
        threads = threads if threads is not None else cores()
        calls = max(1, min(threads, self.job.count * self.job.candidates // self.job.batch))
        self._engine = load_engine(
            engine or BUNDLED_ENGINE,
            threads=threads,
            calls=calls,
            provider=provider,
            trust=trust,
        )
        self.provider = self._engine.provider
        try:
            self._pipeline = Pipeline(self._engine, self.job)
            self.defect = self._pipeline.defect
            self._masks = self._open(masks or Masks())
        except BaseException:
            self._engine.close()
            raise
        self._closed = False

    def __call__(
        self,
        image: Bits,
        mask: ArrayLike | None = None,
        *,
        name: str = "",
        number: int = 0,
        progress: Callable[[State], None] | None = None,
        cancel: threading.Event | None = None,
    ) -> Result:
        """One sample of one image, see `Part`; another ``number``, another defect.

        Raises `InputError` for an array that cannot be used. ``progress`` and ``cancel`` as in
        `run`.
        """
        pairs = [(_checked(Part(image, mask, name)), number)]
        (result,) = self._run(pairs, 1, progress, cancel)
        return result

    def run(
        self,
        parts: Iterable[Part | Bits],
        *,
        progress: Callable[[State], None] | None = None,
        cancel: threading.Event | None = None,
    ) -> Iterator[Result]:
        """The job's count of samples of every part, in order, as they get ready.

        Parts are taken only as there is room for them, so there may be any number; a bare
        image is named by its place. Many are on the way at once and share the engine, which
        is faster than one call after another. Leaving the loop early drops the rest.

        progress   is called with a `State` after every sample, and, from a thread of the engine,
                   after every batch; never twice at once
        cancel     when another thread sets it, `Cancelled` is raised before the next batch

        Raises `InputError` for an array that cannot be used, when its turn comes.
        """
        total = len(parts) * self.job.count if isinstance(parts, Sized) else None
        checked = (
            _checked(part if isinstance(part, Part) else Part(part, name=str(i)))
            for i, part in enumerate(parts)
        )
        pairs = ((part, k) for part in checked for k in range(self.job.count))
        return self._run(pairs, total, progress, cancel)

    def close(self) -> None:
        """Free the engine."""
        self._closed = True
        self._engine.close()

    def _open(self, masks: Masks | MaskSource) -> MaskSource:
        if not isinstance(masks, Masks):
            return masks
        band = math.ceil(self.job.grow + self.job.feather)
        return masks.open(self.defect, self._pipeline.window, self.job.seed, band)

    def _run(
        self,
        pairs: Iterable[tuple[_Part | InputError, int]],
        total: int | None,
        progress: Callable[[State], None] | None,
        cancel: threading.Event | None,
    ) -> Iterator[Result]:
        if self._closed:
            raise EngineError("the synthesizer is closed")
        watched = _Watched(self._engine, total, progress, cancel)
        places: dict[Task[Result], int] = {}

        def tasks() -> Iterator[Task[Result]]:
            for i, (part, number) in enumerate(pairs):
                task = Task(self._make(part, number))
                places[task] = i
                yield task

        ready: dict[int, Task[Result]] = {}
        turn = 0
        for task in Scheduler(watched, batch=self.job.batch).run(tasks()):
            ready[places.pop(task)] = task
            watched.sample_is_done()
            while turn in ready:
                yield ready.pop(turn).result()
                turn += 1

    def _make(self, part: _Part | InputError, number: int) -> Work[Result]:
        if isinstance(part, InputError):
            raise part
        try:
            instances = yield Call("masks", lambda: self._instances(part, number))
        except InputError as fault:
            return part.without(number, str(fault))
        sample = yield from self._pipeline.sample(part.good, number, instances)
        return part.result(sample, instances)

    def _instances(self, part: _Part, number: int) -> list[Mask]:
        if part.mask is not None:
            return [part.mask]
        return [p.mask for p in self._masks(part.good.name, part.good.image, number)]


def _checked(part: Part) -> _Part | InputError:
    """A part, or what is wrong with it, to be raised when its turn comes."""
    try:
        return _Part(part)
    except InputError as fault:
        return fault


class _Part:
    """A part whose arrays were checked."""

    def __init__(self, part: Part) -> None:
        """Raises `InputError` for arrays that are no image or no mask for it."""
        image = part.image
        if not isinstance(image, np.ndarray) or image.dtype not in (np.uint8, np.uint16):
            defect_type = getattr(image, "dtype", type(image).__name__)
            raise InputError(
                f"part {part.name!r}: an image is an array of uint8 or uint16, not {defect_type}"
            )
        self._shape = image.shape
        full = image[..., None] if image.ndim == 2 else image
        if full.ndim != 3 or full.shape[2] not in (1, 2, 3, 4) or not full.size:
            raise InputError(
                f"part {part.name!r}: an image is [H,W] or [H,W,C] with 1 to 4 channels, "
                f"not {list(image.shape)}"
            )
        if full.shape[0] * full.shape[1] > MAX_PIXELS:
            raise InputError(f"part {part.name!r}: more than {MAX_PIXELS // 1_000_000} megapixels")
        self.good = Good(part.name, full)
        self.mask = None if part.mask is None else _as_mask(part.mask, full.shape[:2], part.name)

    def result(self, sample: Sample, instances: list[Mask]) -> Result:
        """A sample as the caller sees it."""
        return Result(
            name=self.good.name,
            number=sample.number,
            seed=sample.seed,
            image=sample.image.reshape(self._shape),
            label=sample.label,
            mask=np.logical_or.reduce(instances),
            band=sample.band,
            figures=sample.figures,
            fault=sample.fault,
        )

    def without(self, number: int, fault: str) -> Result:
        """No sample: there was no place for a defect."""
        nothing = np.zeros(self._shape[:2], bool)
        image = self.good.image.copy().reshape(self._shape)
        return Result(self.good.name, number, 0, image, nothing, nothing, nothing, {}, fault)


def _as_mask(given: ArrayLike, size: tuple[int, ...], name: str) -> Mask:
    mask: NDArray[Any] = np.asarray(given)
    if mask.shape != size or mask.dtype.defect_type not in "biuf":
        raise InputError(
            f"part {name!r}: the mask is {list(mask.shape)} of {mask.dtype}, its image {list(size)}"
        )
    if not mask.any():
        raise InputError(f"part {name!r}: the mask is empty")
    return np.asarray(mask != 0, bool)


class _Watched(Closing):
    """An engine that says how far it is, and stops when it is told to; see `Engine`."""

    def __init__(
        self,
        engine: Engine,
        total: int | None,
        progress: Callable[[State], None] | None,
        cancel: threading.Event | None,
    ) -> None:
        self._engine, self._total, self._progress, self._cancel = engine, total, progress, cancel
        self._steps, self._done, self._lock = 0, 0, threading.Lock()
        self.calls, self.provider = engine.calls, engine.provider

    @property
    def manifest(self) -> Manifest:
        return self._engine.manifest

    def encode(self, pixels: Floats) -> Floats:
        self._check()
        return self._engine.encode(pixels)

    def decode(self, latent: Floats) -> Floats:
        self._check()
        return self._engine.decode(latent)

    def step(self, rows: Rows) -> tuple[Floats, Floats]:
        self._check()
        result = self._engine.step(rows)
        self._tell(steps=len(rows.latent))
        return result

    def sample_is_done(self) -> None:
        """Take it down, and say so."""
        self._tell(done=1)

    def close(self) -> None:
        """The engine is not ours to close."""

    def _check(self) -> None:
        if self._cancel and self._cancel.is_set():
            raise Cancelled(f"stopped after {self._done} samples")

    def _tell(self, *, done: int = 0, steps: int = 0) -> None:
        with self._lock:
            self._done += done
            self._steps += steps
            if self._progress:
                self._progress(State(self._done, self._total, self._steps))
