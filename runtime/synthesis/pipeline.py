"""The method on one image: encode, invert once, generate candidates, decode, keep the best.

Written as work for the scheduler; knows nothing of files or folders. A sample is an image with
all its instances, an instance is painted in tiles (see `tiles`), one after another, and a tile is
the best of several candidates:

    pipeline = Pipeline(engine, SynthesisConfig())
    source = SourceImage("part.png", image)
    tasks = [Task(pipeline.sample(source, k, [mask])) for k in range(3)]
    for task in Scheduler(engine).run(tasks):
        sample = task.result()
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..config.synthesis import SynthesisConfig
from ..diffusion.noise import normal
from ..diffusion.rows import Floats, Prompts
from ..diffusion.sampler import generate, invert, noised
from ..diffusion.schedule import Schedule
from ..diffusion.seeds import sample_seed
from ..engines.engine import Engine
from ..errors import EngineError
from ..images.types import Bits, Mask
from .canvas import Candidate, Canvas, View
from .scheduler import Call, Decode, Encode, Task, Work
from .tiles import Tile, cut

__all__ = ["Pipeline", "Sample", "SourceImage", "memory_of"]

#: Bytes a pixel that a sample holds from its image's reading to its files' writing: the image,
#: 8 bits in three channels, three times, and its masks; what is written and read again.
_HELD = 20


def memory_of(height: int, width: int) -> int:
    """About what a sample of an image of that size holds, in bytes, for `Scheduler`."""
    return _HELD * height * width


class SourceImage:
    """A good image [H,W,C] that samples are made of; what they share is computed once.

    The name decides the noise, together with a sample's number and the configuration's seed.
    """

    def __init__(self, name: str, image: Bits) -> None:
        """Keeps the image as it is."""
        self.name, self.image = name, image
        self._inverted: dict[tuple[Any, ...], Task[_Inverted]] = {}

    def inverted(
        self, view: View, schedule: Schedule | None, work: Work[_Inverted]
    ) -> Task[_Inverted]:
        """The one task that inverts this view of the untouched image by a schedule, if by any."""
        key = (view.tile.window, view.tile.mask.tobytes(), schedule)
        return self._inverted.setdefault(key, Task(work))


@dataclass(frozen=True)
class Sample:
    """An image with a defect.

    number    of its good image's samples
    seed      its own; with the image, the masks and their strengths it makes the sample again
    image     [H,W,C], the source's bits outside the band
    label     [H,W], where the defect is: what changed
    band      [H,W], where the image may differ from its source
    figures   numbers for the manifest, see `Pipeline.sample`
    tries     candidates that were generated
    rejected  candidates that were not fit, each with its reason
    fault     why this is no sample, if so: nothing could be painted, and the image is the source
    """

    source: SourceImage
    number: int
    seed: int
    image: Bits
    label: Mask
    band: Mask
    figures: dict[str, Any]
    tries: int
    rejected: list[str]
    fault: str | None


@dataclass(frozen=True)
class _Inverted:
    """A background: z_0 [1,C,h,w], its trajectory if inverted, and what z_0 decodes to [3,h,w]."""

    latent: Floats
    path: list[Floats]
    decoded: Floats


class Pipeline:
    """An engine set up for what is to be made.

    window  side that the model sees, in px of the image; None: all of it
    band    width of the soft border around a mask, in px
    defect  the type that is made
    """

    def __init__(self, engine: Engine, config: SynthesisConfig, defect: str | None = None) -> None:
        """For one type of ``defect``, by default the only one of the configuration or the engine.

        Raises `UsageError` for a type or a number of steps that the engine does not have.
        """
        manifest = engine.manifest
        if manifest.image.height != manifest.image.width or manifest.image.channels != 3:
            raise EngineError("the engine's window is not a square of 3 channels")
        self.config, self.window = config, manifest.window
        self._side, self._scale = manifest.image.height, 2 if manifest.magnify == 1 else 1
        self.latent = manifest.latent
        self.band = math.ceil(config.grow + config.feather)
        self._context = (
            0 if manifest.magnify == "fit" else max(config.context // manifest.magnify, self.band)
        )
        if defect is None and len(config.defect) == 1:
            defect = config.defect[0].defect_type
        self._manifest = manifest
        self.schedule = manifest.steps(config.steps)
        self._inversion = None if config.background == "noised" else self.schedule
        self.defect = manifest.prompts[manifest.prompt_indices(defect).defect].name

    def sample(
        self,
        source: SourceImage,
        number: int,
        instances: Sequence[Mask],
        seed: int | None = None,
        *,
        defects: Sequence[str | None] | None = None,
        strengths: Sequence[float | None] | None = None,
        healthy: bool = False,
    ) -> Work[Sample]:
        """Paint every instance [H,W] on a good image.

        ``seed`` is the sample's own; by default it follows from the job's, the image's name
        and the sample's number. ``defects`` are the instances' types, by default, and where one is
        None, the pipeline's. ``strengths`` are those wanted of the instances, None for as strong
        as the model paints it (see `defectrt.synthesis.strength`). What could not be painted is
        left out; a sample is at fault unless every instance shows something. ``healthy`` paints
        them by the background's prompt: there is no label, and it is at fault if one shows
        something. The figures:

        tiles          window, candidate, score, visibility, strength, coverage and seam of each
        mask_area      px that were asked for
        refined_area   px of the label
        changed_area   px that differ from the source
        outside_error  largest difference to the source outside the band; 0
        latent_outside_error the same in latents, before it is painted; 0 but in ``dual``
        visibility           mean change in the label, as a share of the full range
        strength             contrast to the surroundings; the strongest tile's
        coverage             share of the mask that is label
        seam                 mean change that the soft border had to fade out; the worst tile's
        """
        if seed is None:
            seed = sample_seed(self.config.seed, source.name, number)
        canvas = yield Call("paint", lambda: Canvas(source.image))
        tries, rejected, missing = 0, list[str](), 0
        unsaid = [None] * len(instances)
        for instance, defect, wanted in zip(
            instances, defects or unsaid, strengths or unsaid, strict=True
        ):
            side, fit = self.window or max(instance.shape), True
            for tile in cut(instance, side, self._context, self._scale):
                prompts = self._prompts(defect, healthy=healthy)
                view, candidates = yield from self._tile(
                    source, canvas, tile, seed, prompts, wanted, healthy
                )
                tries += len(candidates)
                rejected += [c.reason for c in candidates if c.reason]
                best = max(candidates, key=lambda c: (not c.reason, c.score, -c.number))
                yield Call("paint", partial(canvas.paint, view, best))
                fit = fit and not best.reason
            missing += not (
                fit if healthy else (yield Call("paint", partial(canvas.shows, instance)))
            )
        figures = yield Call("paint", partial(canvas.figures, instances))
        fault = ", ".join(dict.fromkeys(rejected)) if missing else None
        if fault and len(instances) > 1:
            fault = f"{missing} of {len(instances)} instances: {fault}"
        return Sample(
            source=source,
            number=number,
            seed=seed,
            image=canvas.image,
            label=canvas.label,
            band=canvas.band,
            figures=figures,
            tries=tries,
            rejected=rejected,
            fault=fault,
        )

    def _tile(
        self,
        source: SourceImage,
        canvas: Canvas,
        tile: Tile,
        seed: int,
        prompts: Prompts,
        wanted: float | None,
        healthy: bool,
    ) -> Work[tuple[View, list[Candidate]]]:
        """All candidates of one tile, from one inversion of what is there before it."""
        view = yield Call("view", lambda: self._view(canvas.image, tile, wanted, healthy))
        if canvas.is_untouched(tile):
            (inverted,) = yield (source.inverted(view, self._inversion, self._invert(view)),)
            origin = inverted.decoded
        else:
            inverted = yield from self._invert(view)
            first = yield Call("view", lambda: self._view(source.image, tile))
            origin = (yield Decode((yield Encode(first.pixels[None]))))[0]
        candidates = list[Candidate]()
        for _ in range(1 + self.config.retries):
            numbers = range(len(candidates), len(candidates) + self.config.candidates)
            candidates += yield tuple(
                Task(self._candidate(view, inverted, origin, noise, number, prompts))
                for number in numbers
                for noise in (normal(seed, len(canvas.tiles), number, inverted.latent.shape),)
            )
            if not all(candidate.reason for candidate in candidates):
                break
        return view, candidates

    def _view(
        self, image: Bits, tile: Tile, wanted: float | None = None, healthy: bool = False
    ) -> View:
        latent = self.latent.height, self.latent.width
        return View(
            image,
            tile,
            self.config,
            side=self._side,
            latent=latent,
            wanted=wanted,
            whole=self.window is None,
            healthy=healthy,
        )

    def _prompts(self, defect: str | None, *, healthy: bool = False) -> Prompts:
        indices = self._manifest.prompt_indices(defect or self.defect)
        if healthy:
            indices = indices._replace(defect=indices.background)
        return Prompts(*(np.full(1, i, np.int64) for i in indices))

    def _invert(self, view: View) -> Work[_Inverted]:
        z0 = yield Encode(view.pixels[None])
        path = list[Floats]()
        if self._inversion:
            prompts = self._prompts(self.defect)  # of these, no type's own
            path = yield from invert(z0, view.latent_mask, prompts, self._inversion)
        return _Inverted(z0, path, (yield Decode(z0))[0])

    def _candidate(
        self,
        view: View,
        inverted: _Inverted,
        origin: Floats,
        noise: Floats,
        number: int,
        prompts: Prompts,
    ) -> Work[Candidate]:
        """One try; ``origin`` [3,h,w] is the untouched image, decoded."""
        path = inverted.path or noised(inverted.latent, view.latent_mask, noise, self.schedule)
        made = yield from generate(
            path,
            view.latent_mask,
            noise,
            prompts,
            self.schedule,
            self.config.background,
        )
        after = yield Decode(made.latent)
        drift = float(np.abs((1 - view.latent_mask) * (made.latent - inverted.latent)).max())

        def assess() -> Candidate:
            pixels = origin, inverted.decoded, after[0]
            return view.assess(number, *pixels, made.attention[0, 0], drift)

        candidate: Candidate = yield Call("assess", assess)
        return candidate
