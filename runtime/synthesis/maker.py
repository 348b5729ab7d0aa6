"""The method on one picture: encode, invert once, generate candidates, decode, keep the best.

Written as work for the scheduler; knows nothing of files or folders. A sample is a picture with
all its spots, a spot is painted in strokes (see `strokes`), one after another, and a stroke is the
best of several candidates:

    maker = Maker(engine, job)
    good = Good("part.png", picture)
    tasks = [Task(maker.sample(good, k, [mask])) for k in range(3)]
    for task in Scheduler(engine).run(tasks):
        sample = task.result()
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Literal, get_args

import numpy as np

from ..diffusion.noise import normal, sample_seed
from ..diffusion.rows import Floats, Prompts
from ..diffusion.sampler import Background, generate, invert
from ..engines.engine import Engine
from ..errors import EngineError, UsageError
from ..pictures.images import Bits, Mask, Pixels, composite, feather, from_model, to_model
from ..pictures.masks import latent_mask
from .refine import Refinement, refine
from .scheduler import BATCH, Call, Decode, Encode, Task, Work
from .strokes import Stroke, cut

__all__ = ["Blend", "Good", "Job", "Maker", "Sample"]

#: ``residual`` adds the change that the model made to the original; ``decoded`` blends to the
#: model's own pixels.
Blend = Literal["residual", "decoded"]

#: A defect this strong, or covering this much of its mask, counts in full.
_STRONG, _COVERING = 0.2, 0.5


@dataclass(frozen=True)
class Job:
    """What to make of every picture.

    count         defects a picture, from one inversion
    candidates    tries a stroke; the one of the highest score is kept
    seed          of the noise; with a picture's name and the sample's number it decides the defect
    steps         DDIM steps; one of the engine's schedules, None for its default
    min_coverage  share of the mask that must have changed; less is no defect
    max_leak      change that the soft border has to fade out, as a share of the defect's own;
                  a defect that does not end within its mask shows a seam
    grow          px beyond the mask in which the result still counts fully
    feather       px over which it then fades; beyond, every pixel is the original's
    context       px of surroundings the model sees around a mask that fills its window; at least
                  as many as grow and feather take
    batch         rows in the engine at once; changes a result by rounding at most

    Raises `UsageError` for impossible values, all of them in one message.
    """

    defect: str | None = None
    count: int = 1
    candidates: int = 1
    seed: int = 0
    steps: int | None = None
    background: Background = "replay"
    blend: Blend = "residual"
    refinement: Refinement = field(default_factory=Refinement)
    min_coverage: float = 0.05
    max_leak: float = 1.0
    grow: float = 2.0
    feather: float = 4.0
    context: int = 8
    batch: int = BATCH

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        faults = [
            (self.count < 1, "count: at least 1"),
            (self.candidates < 1, "candidates: at least 1"),
            (self.batch < 1, "batch: at least 1"),
            (not 0 <= self.min_coverage <= 1, "min_coverage: 0 to 1"),
            (not 0 <= self.max_leak < math.inf, "max_leak: 0 or more"),
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
        """Everything that decides what is made, to the bit; flat."""
        options = asdict(self)
        refinement = options.pop("refinement")
        return options | {f"refine_{name}": value for name, value in refinement.items()}


class Good:
    """A good picture [H,W,C] that samples are made of; what they share is computed once.

    The name decides the noise, together with a sample's number and the job's seed.
    """

    def __init__(self, name: str, picture: Bits) -> None:
        """Keeps the picture as it is."""
        self.name, self.picture = name, picture
        self._inverted: dict[tuple[Any, ...], Task[_Inverted]] = {}

    def inverted(self, view: _View, work: Work[_Inverted]) -> Task[_Inverted]:
        """The one task that inverts this view of the untouched picture."""
        key = (view.stroke.window, view.stroke.mask.tobytes())
        return self._inverted.setdefault(key, Task(work))


@dataclass(frozen=True)
class Sample:
    """A picture with a defect.

    number    of its good picture's samples
    seed      its own; with the picture and the masks it makes the sample again
    picture   [H,W,C], the source's bits outside the band
    label     [H,W], where the defect is: what changed
    band      [H,W], where the picture may differ from its source
    figures   numbers for the manifest, see `Maker.sample`
    tries     candidates that were generated
    rejected  candidates that were not fit, each with its reason
    fault     why this is no sample, if so: nothing could be painted, and the picture is the source
    """

    good: Good
    number: int
    seed: int
    picture: Bits
    label: Mask
    band: Mask
    figures: dict[str, Any]
    tries: int
    rejected: list[str]
    fault: str | None


@dataclass(frozen=True)
class _Inverted:
    """A background: z_0 [1,C,h,w], its trajectory, and what z_0 decodes to [3,h,w]."""

    latent: Floats
    path: list[Floats]
    decoded: Floats


@dataclass(frozen=True)
class _Candidate:
    """A stroke as it could be: change [S,S,3] of the picture, and the label [S,S] under the mask.

    ``reason`` says why it is not fit, if so.
    """

    number: int
    change: Pixels
    label: Mask
    figures: dict[str, float]
    score: float
    reason: str | None


class Maker:
    """An engine set up for a job."""

    def __init__(self, engine: Engine, job: Job) -> None:
        """Raises `UsageError` for a defect or a number of steps that the engine does not have."""
        manifest = engine.manifest
        if manifest.image.height != manifest.image.width or manifest.image.channels != 3:
            raise EngineError("the engine's window is not a square of 3 channels")
        self.job, self.window = job, manifest.image.height
        self.latent = manifest.latent
        self._context = max(job.context, math.ceil(job.grow + job.feather))
        indices = manifest.prompt_indices(job.defect)
        self._prompts = Prompts(*(np.full(1, i, np.int64) for i in indices))
        self.schedule = manifest.steps(job.steps)
        self.defect = manifest.prompts[indices.defect].name

    def sample(
        self, good: Good, number: int, spots: Sequence[Mask], seed: int | None = None
    ) -> Work[Sample]:
        """Paint every spot [H,W] on a good picture.

        ``seed`` is the sample's own; by default it follows from the job's, the picture's name
        and the sample's number. What could not be painted is left out; a sample is at fault
        unless every spot shows something. The figures:

        strokes              window, candidate, score, visibility, coverage and seam of each
        mask_area            px that were asked for
        refined_area         px of the label
        changed_area         px that differ from the source
        outside_error        largest difference to the source outside the band; 0
        latent_outside_error the same in latents, before it is painted; 0 in ``replay``
        visibility           mean change in the label, as a share of the full range
        coverage             share of the mask that is label
        seam                 mean change that the soft border had to fade out; the worst stroke's
        """
        if seed is None:
            seed = sample_seed(self.job.seed, good.name, number)
        canvas = yield Call("paint", lambda: _Canvas(good.picture))
        tries, rejected, missing = 0, list[str](), 0
        for spot in spots:
            for stroke in cut(spot, self.window, self._context):
                view, candidates = yield from self._stroke(good, canvas, stroke, seed)
                tries += len(candidates)
                rejected += [c.reason for c in candidates if c.reason]
                best = max(candidates, key=lambda c: (not c.reason, c.score, -c.number))
                yield Call("paint", partial(canvas.paint, view, best))
            missing += not (yield Call("paint", partial(canvas.shows, spot)))
        figures = yield Call("paint", partial(canvas.figures, spots))
        fault = ", ".join(dict.fromkeys(rejected)) if missing else None
        if fault and len(spots) > 1:
            fault = f"{missing} of {len(spots)} spots: {fault}"
        return Sample(
            good=good,
            number=number,
            seed=seed,
            picture=canvas.picture,
            label=canvas.label,
            band=canvas.band,
            figures=figures,
            tries=tries,
            rejected=rejected,
            fault=fault,
        )

    def _stroke(
        self, good: Good, canvas: _Canvas, stroke: Stroke, seed: int
    ) -> Work[tuple[_View, list[_Candidate]]]:
        """All candidates of one stroke, from one inversion of what is there before it."""
        view = yield Call("view", lambda: _View(canvas.picture, stroke, self))
        if canvas.is_untouched(stroke):
            (inverted,) = yield (good.inverted(view, self._invert(view)),)
            origin = inverted.decoded
        else:
            inverted = yield from self._invert(view)
            first = yield Call("view", lambda: _View(good.picture, stroke, self))
            origin = (yield Decode((yield Encode(first.pixels[None]))))[0]
        noises = (
            normal(seed, len(canvas.strokes), c, inverted.latent.shape)
            for c in range(self.job.candidates)
        )
        candidates = yield tuple(
            Task(self._candidate(view, inverted, origin, noise, c))
            for c, noise in enumerate(noises)
        )
        return view, candidates

    def _invert(self, view: _View) -> Work[_Inverted]:
        z0 = yield Encode(view.pixels[None])
        path = yield from invert(z0, view.latent_mask, self._prompts, self.schedule)
        return _Inverted(z0, path, (yield Decode(z0))[0])

    def _candidate(
        self, view: _View, inverted: _Inverted, origin: Floats, noise: Floats, number: int
    ) -> Work[_Candidate]:
        """One try; ``origin`` [3,h,w] is the untouched picture, decoded."""
        made = yield from generate(
            inverted.path,
            view.latent_mask,
            noise,
            self._prompts,
            self.schedule,
            self.job.background,
        )
        after = yield Decode(made.latent)
        drift = float(np.abs((1 - view.latent_mask) * (made.latent - inverted.latent)).max())

        def assess() -> _Candidate:
            pixels = origin, inverted.decoded, after[0]
            return view.assess(number, *pixels, made.attention[0, 0], drift)

        candidate: _Candidate = yield Call("assess", assess)
        return candidate


class _View:
    """What the model sees of a picture for a stroke, and what a result does to it."""

    def __init__(self, picture: Bits, stroke: Stroke, maker: Maker) -> None:
        window, job = stroke.window, maker.job
        self.stroke, self.picture = stroke, window.crop(picture).copy()
        self.pixels = to_model(self.picture, maker.window)
        size = maker.latent.height, maker.latent.width
        self.latent_mask = latent_mask(stroke.mask, *size)[None]
        self.weight = feather(stroke.mask, job.grow, job.feather)
        self._job = job
        self._inside = np.zeros(stroke.mask.shape, bool)
        height, width = picture.shape[:2]
        self._inside[
            max(0, -window.y) : max(0, height - window.y), max(0, -window.x) : width - window.x
        ] = True

    def assess(
        self,
        number: int,
        origin: Floats,
        before: Floats,
        after: Floats,
        attention: Floats,
        drift: float,
    ) -> _Candidate:
        """Label and measure a candidate; origin, before and after [3,h,w] are decoded.

        The good picture went through the decoder too, so that what the autoencoder itself alters
        is in neither the change nor the label.
        """
        side, job = self.stroke.window.side, self._job
        result = from_model(after, side)
        amount = np.abs(result - from_model(origin, side)).max(axis=2)
        before = self.pixels if job.blend == "decoded" else before
        change = result - from_model(before, side)
        if not (np.isfinite(amount).all() and np.isfinite(change).all()):
            nothing = np.zeros_like(self._inside)
            fault = "the engine's result has values that are not finite"
            return _Candidate(number, change, nothing, {}, 0, fault)
        label = refine(self.stroke.mask, attention, amount, job.refinement) & self._inside
        fading = (self.weight > 0) & (self.weight < 1) & self._inside
        figures = {
            "visibility": _mean(amount[label]),
            "coverage": float(label.sum() / (self.stroke.mask & self._inside).sum()),
            "seam": _mean(np.abs(change).max(axis=2)[fading]),
            "latent_outside_error": drift,
        }
        return _Candidate(number, change, label, figures, _score(**figures), _fault(job, **figures))


class _Canvas:
    """A good picture on which defects are being painted.

    picture   [H,W,C]
    label     [H,W], where a defect is
    band      [H,W], where the picture may differ from its source
    strokes   what became of each stroke
    """

    def __init__(self, source: Bits) -> None:
        self._source, self.picture = source, source.copy()
        self.label, self.band = np.zeros((2, *source.shape[:2]), bool)
        self.strokes: list[dict[str, Any]] = []

    def is_untouched(self, stroke: Stroke) -> bool:
        """Whether nothing was painted yet in what the model sees for a stroke."""
        return not stroke.window.crop(self.band).any()

    def shows(self, spot: Mask) -> bool:
        """Whether any of a spot became label."""
        return bool((self.label & spot).any())

    def paint(self, view: _View, candidate: _Candidate) -> None:
        """Paint a candidate of a stroke, unless it is not fit."""
        window = view.stroke.window
        record = {"window": asdict(window), "candidate": candidate.number}
        record |= {"score": candidate.score, "area": int(candidate.label.sum())}
        if candidate.reason:
            record["rejected"] = candidate.reason
        else:
            window.paste(self.picture, composite(view.picture, candidate.change, view.weight))
            for array, part in ((self.label, candidate.label), (self.band, view.weight > 0)):
                window.paste(array, window.crop(array) | part)
        self.strokes.append(record | candidate.figures)

    def figures(self, spots: Sequence[Mask]) -> dict[str, Any]:
        """What the manifest says of the sample; see `Maker.sample`."""
        painted = [stroke for stroke in self.strokes if "rejected" not in stroke]
        weights = [stroke["area"] for stroke in painted]
        differs = (self.picture != self._source).any(axis=2)
        outside = differs & ~self.band
        error = self.picture[outside].astype(int) - self._source[outside]
        mask_area = int(np.logical_or.reduce(spots).sum())
        return {
            "strokes": self.strokes,
            "mask_area": mask_area,
            "refined_area": int(self.label.sum()),
            "changed_area": int(differs.sum()),
            "outside_error": int(np.abs(error).max(initial=0)),
            "latent_outside_error": max((s["latent_outside_error"] for s in painted), default=0.0),
            "visibility": float(np.average([s["visibility"] for s in painted], weights=weights))
            if any(weights)
            else 0.0,
            "coverage": float(self.label.sum() / mask_area),
            "seam": max((s["seam"] for s in painted), default=0.0),
        }


def _mean(values: Pixels) -> float:
    return float(values.mean()) if values.size else 0.0


def _score(*, visibility: float, coverage: float, seam: float, **_: float) -> float:
    """0 to 1: how strong a defect is, how much of its mask it covers, how little it leaks.

    Strength and cover count up to what is plain to see; beyond, more is not better.
    """
    if visibility <= 0:
        return 0.0
    strong, covering = min(1.0, visibility / _STRONG), min(1.0, coverage / _COVERING)
    return strong * covering * (1 - min(1.0, seam / visibility))


def _fault(job: Job, *, visibility: float, coverage: float, seam: float, **_: float) -> str | None:
    """Why a candidate is not fit, if so."""
    if coverage == 0:
        return "no defect appeared"
    if coverage < job.min_coverage:
        return f"it covers only {coverage:.1%} of its mask"
    if seam > job.max_leak * visibility and job.refinement.method != "none":
        return f"it leaks: its border changed by {seam:.3f}, itself by {visibility:.3f}"
    return None
