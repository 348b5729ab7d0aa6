"""Defects on images in memory, without a dataset: for programs that do more with the results.

with defectrt.Synthesizer(defect="scratch") as synthesizer:
    result = synthesizer(image, mask)
    for result in synthesizer.run(images):
        train(result.image, result.label)
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..closing import Closing
from ..config.job import SynthesizerConfig
from ..config.names import COMBINED
from ..config.synthesis import MAX_STRENGTH
from ..diffusion.rows import Floats, Rows
from ..engines.engine import Engine
from ..engines.loading import batch_size_of, open_engine
from ..engines.manifest import Manifest
from ..errors import Cancelled, EngineError, InputError
from ..images.given import Picture, in_channels, read_given
from ..images.preview import outlined
from ..images.types import Bits, Mask
from ..masks.reading import given_mask
from ..masks.source import MaskSource, Placed
from .maker import Maker, open_makers, open_mixed, types_made
from .mixed import type_of_all
from .pipeline import Sample, SourceImage, memory_of
from .scheduler import Call, Scheduler, Task, Work
from .turns import shares_of, turn, type_of

__all__ = ["Instance", "Result", "State", "Synthesizer", "Workpiece"]


@dataclass(frozen=True)
class Workpiece:
    """A good image, and where it may get a defect.

    image   an array [H,W] or [H,W,C], uint8 or uint16; C is 1 grey, 2 grey + alpha, 3 RGB, 4 RGB +
            alpha; or a file's path, or a picture of Pillow's, grey ones as [H,W]
    mask    [H,W], which is read as `defectrt.masks.reading.as_mask` says, or a file's path; without
            it, one that suits the defect type is drawn
    name    decides the noise, together with the configuration's seed and the sample's number; by
            default the name of the file, if it is one
    defect  its type; by default the synthesizer's types take turns: the seed, the name and the
            number decide
    strength
            of its defects, a contrast; by default as the configuration says (see its ``strength``)
    """

    image: Picture
    mask: ArrayLike | str | PathLike[str] | None = None
    name: str = ""
    defect: str | None = None
    strength: float | None = None


@dataclass(frozen=True)
class Instance:
    """One defect of a result: its type, where it was asked for and where it is, each [H,W]."""

    defect: str
    mask: Mask
    label: Mask


@dataclass(frozen=True)
class Result:
    """An image with a defect; in a notebook it shows itself, and beside it its label.

    name, number  of the workpiece, and of the sample among the workpiece's
    defect        its type; ``combined`` if its instances are of several
    seed          the sample's own; with the image, the mask and its strength it makes it again
    image         of the workpiece's shape and type; the workpiece's own bits outside the band
    label         [H,W], where the defect is
    mask          [H,W], where it was asked for
    band          [H,W], where the image may differ from the workpiece's
    instances     its defects, in the order of painting
    figures       see `defectrt.synthesis.pipeline.Pipeline.sample`
    fault         why there is no defect, if so; the image is the workpiece's then
    """

    name: str
    number: int
    defect: str
    seed: int
    image: Bits
    label: Mask
    mask: Mask
    band: Mask
    instances: tuple[Instance, ...]
    figures: dict[str, Any]
    fault: str | None

    def _repr_png_(self) -> bytes:
        return outlined(in_channels(self.image), self.label)


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
            shares = shares_of(config.defect, types_made(self._engine, config))
            self._makers = open_makers(self._engine, config, shares, mask_source)
            self._mixed = open_mixed(self._makers, config, shares) if config.mixed else None
        except BaseException:
            self._engine.close()
            raise
        self._turn, self.defect_types = turn(shares), list(shares)
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
        pairs: Iterable[tuple[_Checked | InputError, int]],
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
                size = () if isinstance(workpiece, InputError) else workpiece.source.image.shape[:2]
                task = Task(self._make(workpiece, number), memory_of(*size) if size else 0)
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

    def _make(self, workpiece: _Checked | InputError, number: int) -> Work[Result]:
        if isinstance(workpiece, InputError):
            raise workpiece
        if self.config.like and workpiece.mask is not None:
            raise InputError(
                f"workpiece {workpiece.source.name!r}: like has masks of its own; leave mask out"
            )
        if self._mixed and not workpiece.defect:
            if workpiece.mask is not None:
                raise InputError(
                    f"workpiece {workpiece.source.name!r}: mixed has masks of its own; leave mask "
                    "out, or say which defect it is for"
                )
            return (yield from self._made(workpiece, number, COMBINED, self._mixed))
        defect = workpiece.defect or type_of(
            self._turn, self.config.seed, workpiece.source.name, number
        )
        if defect not in self._makers:
            raise InputError(
                f"workpiece {workpiece.source.name!r}: {defect!r} is not made here, but "
                f"{', '.join(self._makers)}"
            )
        return (yield from self._made(workpiece, number, defect, self._makers[defect]))

    def _made(self, workpiece: _Checked, number: int, defect: str, maker: Maker) -> Work[Result]:
        try:
            placed = yield Call("masks", lambda: _placed(workpiece, maker, number))
        except InputError as fault:
            return workpiece.without(number, defect, str(fault))
        sample = yield from maker.paint(workpiece.source, number, placed)
        return workpiece.result(sample, defect, placed)


def _named(image: Picture, place: int) -> Workpiece:
    """A bare image; a file has its name already."""
    return Workpiece(image, name="" if isinstance(image, str | PathLike) else str(place))


def _placed(workpiece: _Checked, maker: Maker, number: int) -> list[Placed]:
    if workpiece.mask is not None:
        placed = [Placed(workpiece.mask, {"from": "given"})]
    else:
        placed = maker.masks(workpiece.source.name, workpiece.source.image, number)
    if workpiece.strength is not None:
        placed = [replace(one, strength=workpiece.strength) for one in placed]
    return maker.strong(workpiece.source, number, placed)


def _checked(workpiece: Workpiece) -> _Checked | InputError:
    """A workpiece, or what is wrong with it, to be raised when its turn comes."""
    try:
        return _Checked(workpiece)
    except InputError as fault:
        return fault


class _Checked:
    """A workpiece whose image and mask were read and checked."""

    def __init__(self, workpiece: Workpiece) -> None:
        """Raises `InputError` for what is no image, or no mask for it."""
        mask, name = workpiece.mask, workpiece.name
        if isinstance(workpiece.image, str | PathLike) and not name:
            name = Path(workpiece.image).name
        image = read_given(workpiece.image, f"workpiece {name!r}")
        self._shape, full = image.shape, in_channels(image)
        self.source, self.defect, self.mask = SourceImage(name, full), workpiece.defect, None
        self.strength = workpiece.strength
        if self.strength is not None and not 0 < self.strength <= MAX_STRENGTH:
            raise InputError(
                f"workpiece {name!r}: strength {self.strength}: above 0 and up to {MAX_STRENGTH}"
            )
        if mask is not None:
            self.mask = given_mask(mask, (full.shape[0], full.shape[1]), f"workpiece {name!r}")

    def result(self, sample: Sample, defect: str, placed: Sequence[Placed]) -> Result:
        """A sample as the caller sees it; instances without a type are of ``defect``."""
        instances = tuple(
            Instance(p.defect or defect, p.mask, p.mask & sample.label) for p in placed
        )
        return Result(
            name=self.source.name,
            number=sample.number,
            defect=type_of_all(instance.defect for instance in instances),
            seed=sample.seed,
            image=sample.image.reshape(self._shape),
            label=sample.label,
            mask=np.logical_or.reduce([instance.mask for instance in instances]),
            band=sample.band,
            instances=instances,
            figures=sample.figures,
            fault=sample.fault,
        )

    def without(self, number: int, defect: str, fault: str) -> Result:
        """No sample: there was no place for a defect."""
        nothing = np.zeros(self._shape[:2], bool)
        image = self.source.image.copy().reshape(self._shape)
        name = self.source.name
        return Result(name, number, defect, 0, image, nothing, nothing, nothing, (), {}, fault)


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
