"""Defects on images in memory, without a dataset: for programs that do more with the results.

with defectrt.Synthesizer(defect="scratch") as synthesizer:
    result = synthesizer(image, mask)
    for result in synthesizer.run(images):
        train(result.image, result.label)
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass
from os import PathLike
from typing import Any

from numpy.typing import ArrayLike

from ..closing import Closing
from ..config.job import SynthesizerConfig
from ..diffusion.rows import Floats, Rows
from ..engines.engine import Engine
from ..engines.loading import batch_size_of, open_engine
from ..engines.manifest import Manifest
from ..errors import Cancelled, EngineError, InputError
from ..images.given import Picture
from ..masks.source import MaskSource
from .scheduler import Scheduler, Task
from .workpiece import Checked, Result, Workpiece
from .workshop import Workshop

__all__ = ["State", "Synthesizer"]


@dataclass(frozen=True)
class State:
    """How far a run is.

    done    samples that are finished
    total   samples that were asked for; None while the workpieces have no length
    steps   rows that went through the engine's row step so far
    """

    done: int
    total: int | None
    steps: int


class Synthesizer(Closing):
    """An engine, open and set up; puts defects into images.

    Several threads may use it at once. A result depends on its workpiece, its number, the engine
    and the configuration alone: not on what else is made, nor in what order.

    defect_types  those that it makes, in the engine's order
    provider      what the engine runs on
    """

    def __init__(
        self,
        config: SynthesizerConfig | None = None,
        *,
        mask_source: MaskSource | None = None,
        **options: Any,
    ) -> None:
        """Verify and open an engine, by default the bundled one.

        ``options`` are those of the command line and of `SynthesizerConfig`, by the same names;
        ``config`` holds them all, and what is given beside it replaces what it says.
        ``mask_source`` is a function of your own that says where workpieces without a mask get
        theirs; otherwise the options say so, and by default they are drawn anywhere.

        Raises `UsageError` for options that are not possible, for a type of defect or a number of
        steps that the engine does not have; `EngineError` for an engine that is damaged or not
        trusted or a provider that does not take it.
        """
        self.config = config.replace(**options) if config else SynthesizerConfig(**options)
        config = self.config
        self._engine = open_engine(config, config.count * config.candidates)
        self.provider = self._engine.provider
        self._mask_source = mask_source
        try:
            self._workshop = Workshop(self._engine, config, mask_source)
        except BaseException:
            self._engine.close()
            raise
        self.defect_types = self._workshop.defect_types
        self._closed = False

    def __reduce__(self) -> tuple[Any, ...]:
        """By its configuration: another process opens the engine anew."""
        return _reopen, (self.config, self._mask_source)

    def __call__(
        self,
        image: Picture,
        mask: ArrayLike | str | PathLike[str] | None = None,
        *,
        name: str = "",
        number: int = 0,
        defect: str | None = None,
        strength: float | None = None,
        progress: Callable[[State], None] | None = None,
        cancel: threading.Event | None = None,
    ) -> Result:
        """One sample of one image, see `Workpiece`; another ``number``, another defect.

        Raises `InputError` for an image or a mask that cannot be used and for a type that is not
        made here. ``progress`` and ``cancel`` as in `run`.
        """
        pairs = [(_checked(Workpiece(image, mask, name, defect, strength)), number)]
        (result,) = self._run(pairs, 1, progress, cancel)
        return result

    def run(
        self,
        workpieces: Iterable[Workpiece | Picture],
        *,
        progress: Callable[[State], None] | None = None,
        cancel: threading.Event | None = None,
    ) -> Iterator[Result]:
        """The configured count of samples of every workpiece, in order, as they get ready.

        Workpieces are taken only as there is room for them, so there may be any number; a bare
        image that is no file is named by its place. Many are on the way at once and share the
        engine, which is faster than one call after another. Leaving the loop early drops the rest.

        progress   is called with a `State` after every sample, and, from a thread of the engine,
                   after every batch; never twice at once
        cancel     when another thread sets it, `Cancelled` is raised before the next batch

        Raises `InputError` for an image, a mask or a type that cannot be used, when its turn comes.
        """
        total = len(workpieces) * self.config.count if isinstance(workpieces, Sized) else None
        checked = (
            _checked(workpiece if isinstance(workpiece, Workpiece) else _named(workpiece, i))
            for i, workpiece in enumerate(workpieces)
        )
        pairs = ((workpiece, k) for workpiece in checked for k in range(self.config.count))
        return self._run(pairs, total, progress, cancel)

    def close(self) -> None:
        """Free the engine."""
        self._closed = True
        self._engine.close()

    def _run(
        self,
        pairs: Iterable[tuple[Checked | InputError, int]],
        total: int | None,
        progress: Callable[[State], None] | None,
        cancel: threading.Event | None,
    ) -> Iterator[Result]:
        if self._closed:
            raise EngineError("the synthesizer is closed")
        watched = _Watched(self._engine, total, progress, cancel)
        places: dict[Task[Result], int] = {}

        def tasks() -> Iterator[Task[Result]]:
            for i, (workpiece, number) in enumerate(pairs):
                task = self._workshop.task(workpiece, number)
                places[task] = i
                yield task

        ready: dict[int, Task[Result]] = {}
        turn = 0
        batch_size = batch_size_of(self.config, self._engine)
        for task in Scheduler(watched, batch_size=batch_size).run(tasks()):
            ready[places.pop(task)] = task
            watched.sample_is_done()
            while turn in ready:
                yield ready.pop(turn).result()
                turn += 1


def _named(image: Picture, place: int) -> Workpiece:
    """A bare image; a file has its name already."""
    return Workpiece(image, name="" if isinstance(image, str | PathLike) else str(place))


def _checked(workpiece: Workpiece) -> Checked | InputError:
    """A workpiece, or what is wrong with it, to be raised when its turn comes."""
    try:
        return Checked(workpiece)
    except InputError as fault:
        return fault


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

    def stop(self) -> None:
        self._engine.stop()

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


def _reopen(config: SynthesizerConfig, mask_source: MaskSource | None) -> Synthesizer:
    return Synthesizer(config, mask_source=mask_source)
