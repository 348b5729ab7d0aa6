"""The method on a few pictures: encode, invert once, generate several defects, decode, label."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from time import monotonic
from typing import Any, Literal, get_args

import numpy as np

from .engine import Engine
from .errors import EngineError, UsageError
from .images import (
    Bits,
    Mask,
    composite,
    feather,
    from_model,
    place_window,
    to_model,
)
from .masks import latent_mask
from .noise import item_id, normal
from .refine import Refinement, refine
from .rows import Floats, Prompts
from .sampler import Background, generate, invert

__all__ = ["Blend", "Item", "Job", "Maker", "Sample"]

#: ``residual`` adds the change that the model made to the original; ``decoded`` blends to the
#: model's own pixels.
Blend = Literal["residual", "decoded"]


@dataclass(frozen=True)
class Job:
    """What to make of every picture.

    count       defects a picture, from one inversion
    seed        of the noise; with a picture's name and the sample's number it decides the defect
    steps       DDIM steps; one of the engine's schedules, None for its default
    grow        px beyond the mask in which the result still counts fully
    feather     px over which it then fades; beyond, every pixel is the original's
    context     px of surroundings the model sees around a mask that fills its window; at least
                as many as grow and feather take
    batch       windows in the engine at once; changes a result by rounding at most

    Raises `UsageError` for impossible values, all of them in one message.
    """

    defect: str | None = None
    count: int = 1
    seed: int = 0
    steps: int | None = None
    background: Background = "replay"
    blend: Blend = "residual"
    refinement: Refinement = field(default_factory=Refinement)
    grow: float = 2.0
    feather: float = 4.0
    context: int = 8
    batch: int = 4

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        faults = [
            (self.count < 1, "count: at least 1"),
            (self.batch < 1, "batch: at least 1"),
            (not 0 <= self.grow < math.inf, "grow: 0 px or more"),
            (not 0 <= self.feather < math.inf, "feather: 0 px or more"),
            (self.context < 0, "context: 0 px or more"),
            (self.background not in get_args(Background), "background: replay or dual"),
            (self.blend not in get_args(Blend), "blend: residual or decoded"),
        ]
        found = [text for wrong, text in faults if wrong]
        if found:
            raise UsageError("the options are not possible: " + "; ".join(found))

    def record(self) -> dict[str, Any]:
        """Everything that decides what is made, flat; not the batch."""
        options = asdict(self)
        del options["batch"]
        refinement = options.pop("refinement")
        return options | {f"refine_{name}": value for name, value in refinement.items()}


@dataclass(frozen=True)
class Item:
    """A good picture, ready to be worked on.

    index     its place in the sorted folder
    source    its path under the folder, posix; decides the noise
    picture   [H,W,C]
    mask      [H,W], not empty
    record    what the manifest says of it
    """

    index: int
    source: str
    picture: Bits
    mask: Mask
    record: dict[str, Any]


@dataclass(frozen=True)
class Sample:
    """A picture with a defect.

    number    0 … count-1 of its item
    picture   [H,W,C], the source's bits outside the band
    label     [H,W], where the defect is; empty if none appeared
    band      [H,W], where the picture may differ from its source
    figures   numbers for the manifest
    fault     why the engine's result cannot be used, if so; the picture is the source then
    """

    item: Item
    number: int
    picture: Bits
    label: Mask
    band: Mask
    figures: dict[str, Any]
    fault: str | None = None


class Maker:
    """An engine set up for a job."""

    def __init__(self, engine: Engine, job: Job) -> None:
        """Raises `UsageError` for a defect or a number of steps that the engine does not have."""
        manifest = engine.manifest
        if manifest.image.height != manifest.image.width or manifest.image.channels != 3:
            raise EngineError("the engine's window is not a square of 3 channels")
        self.engine, self.job = engine, job
        self.prompts = manifest.prompt_indices(job.defect)
        self.schedule = manifest.steps(job.steps)
        self.defect = manifest.prompts[self.prompts.defect].name

    def __call__(self, items: Sequence[Item]) -> Iterator[Sample]:
        """Samples 0 … count-1 of every item, in order; at most ``batch`` items."""
        engine, job = self.engine, self.job
        start = monotonic()
        views = [_View(item, engine, job) for item in items]
        mask = np.stack([view.latent_mask for view in views])
        z0 = engine.encode(np.stack([view.pixels for view in views]))
        path = invert(engine.step, z0, mask, self._prompts(len(items)), self.schedule)
        before = engine.decode(z0)
        shared = (monotonic() - start) / (len(items) * job.count)
        rows = [(i, k) for i in range(len(items)) for k in range(job.count)]
        for chunk in (rows[n : n + job.batch] for n in range(0, len(rows), job.batch)):
            start = monotonic()
            of = [i for i, _ in chunk]
            noise = [normal(job.seed, item_id(items[i].source), k, z0.shape[1:]) for i, k in chunk]
            made = generate(
                engine.step,
                [z[of] for z in path],
                mask[of],
                np.stack(noise),
                self._prompts(len(chunk)),
                self.schedule,
                job.background,
            )
            after = engine.decode(made.latent)
            drift = np.abs((1 - mask[of]) * (made.latent - z0[of])).max(axis=(1, 2, 3))
            seconds = shared + (monotonic() - start) / len(chunk)
            for n, (i, k) in enumerate(chunk):
                figures = {"latent_outside_error": float(drift[n]), "seconds": round(seconds, 4)}
                yield views[i].sample(k, before[i], after[n], made.attention[n, 0], figures)

    def _prompts(self, rows: int) -> Prompts:
        p = self.prompts
        return Prompts(*(np.full(rows, i, np.int64) for i in (p.defect, p.background, p.masked)))


class _View:
    """What the model sees of an item: a square window around the mask, mirrored if need be."""

    def __init__(self, item: Item, engine: Engine, job: Job) -> None:
        image, latent = engine.manifest.image, engine.manifest.latent
        context = max(job.context, math.ceil(job.grow + job.feather))
        self._item, self._job = item, job
        self._window = place_window(item.mask, image.height, context)
        self._picture, self._mask = self._crop(item.picture), self._crop(item.mask)
        self.pixels = to_model(self._picture, image.height)
        self.latent_mask = latent_mask(self._mask, latent.height, latent.width)

    def sample(
        self,
        number: int,
        before: Floats,
        after: Floats,
        attention: Floats,
        figures: dict[str, Any],
    ) -> Sample:
        """Label and composite: before and after [3,h,w] are decoded, attention is [r,r].

        The good picture went through the decoder too, so that what the autoencoder itself alters
        is in neither the change nor the label.
        """
        item, window, job = self._item, self._window, self._job
        picture, label, band = item.picture.copy(), *np.zeros((2, *item.mask.shape), bool)
        if not (np.isfinite(before).all() and np.isfinite(after).all()):
            fault = "the engine's result has values that are not finite"
            return Sample(item, number, picture, label, band, figures, fault)
        change = from_model(after, window.side) - from_model(before, window.side)
        amount = np.abs(change).max(axis=2)
        refined = refine(self._mask, attention, amount, job.refinement)
        if job.blend == "decoded":
            change = from_model(after, window.side) - from_model(self.pixels, window.side)
        weight = feather(self._mask, job.grow, job.feather)
        window.paste(picture, composite(self._picture, change, weight))
        window.paste(label, refined)
        window.paste(band, weight > 0)
        figures |= {
            "window": asdict(window),
            "mask_area": int(item.mask.sum()),
            "refined_area": int(label.sum()),
            "changed_area": int((picture != item.picture).any(axis=2).sum()),
            "visibility": float(amount[refined].mean()) if refined.any() else 0.0,
        }
        return Sample(item, number, picture, label, band, figures)

    def _crop(self, array: Any) -> Any:
        return self._window.crop(array)
