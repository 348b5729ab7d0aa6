"""The main job: a folder of good pictures becomes a labelled dataset of defective ones."""

from __future__ import annotations

import hashlib
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any, Literal

import numpy as np

from .dataset import Dataset
from .engine import DEFAULT_ENGINE, Engine, load_engine
from .errors import Cancelled, InputError, NothingDoneError, PartialError
from .images import (
    Bits,
    Mask,
    Pixels,
    Window,
    composite,
    feather,
    from_model,
    is_picture,
    place_window,
    read_picture,
    to_model,
)
from .manifest import PromptIndices
from .masks import find_mask, latent_mask, read_mask
from .noise import item_id, normal
from .progress import Progress
from .refine import Refinement, refine
from .rows import Floats, Prompts
from .sampler import Background, generate, invert, repeat
from .schedule import Schedule
from .shapes import draw_mask

__all__ = ["Blend", "Job", "Summary", "synthesize"]

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
    context     px of surroundings the model sees around a mask that fills its window
    batch       pictures in the engine at once
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
        """Refuse impossible values, all of them in one message."""
        faults = [
            (self.count < 1, "count: at least 1"),
            (self.batch < 1, "batch: at least 1"),
            (self.grow < 0 or self.feather < 0, "grow and feather: 0 or more px"),
            (self.context < 0, "context: 0 or more px"),
            (self.background not in ("replay", "dual"), "background: replay or dual"),
            (self.blend not in ("residual", "decoded"), "blend: residual or decoded"),
        ]
        found = [text for wrong, text in faults if wrong]
        if found:
            raise InputError("the options are not possible: " + "; ".join(found))


@dataclass
class Summary:
    """What became of a job.

    requested   samples that were asked for
    kept        samples that are in the dataset
    empty       samples in which no defect appeared; not kept
    skipped     pictures that could not be used, each with its reason
    """

    requested: int = 0
    kept: int = 0
    empty: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def check(self) -> None:
        """Raise `NothingDoneError` or `PartialError` unless everything was made."""
        if self.kept == self.requested:
            return
        reasons = "".join(f"\n  {line}" for line in self.skipped + self.empty)
        text = f"{self.kept} of {self.requested} samples were made{reasons}"
        raise (PartialError if self.kept else NothingDoneError)(text)


@dataclass(frozen=True)
class _Item:
    """One picture with its mask and window, read and ready."""

    index: int
    source: str
    mask_file: str
    picture: Bits
    mask: Mask
    window: Window


@dataclass(frozen=True)
class _Result:
    """One sample of an item, in its window [S,S]."""

    change: Pixels
    label: Mask
    figures: dict[str, float]


def synthesize(
    images: Path,
    out: Path,
    job: Job | None = None,
    *,
    engine: Path = DEFAULT_ENGINE,
    masks: Path | None = None,
    category: str = "parts",
    resume: bool = False,
    threads: int | None = None,
    quiet: bool = False,
) -> Summary:
    """Put defects into every picture under ``images`` and write a dataset to ``out``.

    The mask of a picture has the same path under ``masks`` (see `defectrt.masks.find_mask`);
    without ``masks``, one that suits the kind of defect is drawn (see `defectrt.shapes`).
    Pictures that cannot be used are skipped and listed in the summary; the rest goes on.
    Ctrl-C finishes the pictures at hand and raises `Cancelled`.
    """
    job = job or Job()
    pictures = _find_pictures(images)
    if masks and not masks.is_dir():
        raise InputError(f"{masks}: no such folder of masks")
    with load_engine(engine, threads=threads) as opened:
        manifest = opened.manifest
        prompts = manifest.prompt_indices(job.defect)
        defect = manifest.prompts[prompts.defect].name
        schedule = manifest.steps(job.steps)
        fingerprint = hashlib.sha256((engine / "engine.json").read_bytes()).hexdigest()
        record = asdict(job) | {
            "defect": defect,
            "steps": len(schedule),
            "category": category,
            "engine": fingerprint,
        }
        dataset = Dataset(out, category, defect, record, resume=resume)
        summary = Summary(requested=len(pictures) * job.count)
        maker = _Maker(opened, schedule, prompts, job, defect)
        with Progress(len(pictures), "synthesize", quiet=quiet) as progress, _interrupt() as stop:
            for start in range(0, len(pictures), job.batch):
                if stop.is_set():
                    raise Cancelled(
                        f"stopped after {start} of {len(pictures)} pictures; go on with --resume"
                    )
                paths = list(enumerate(pictures))[start : start + job.batch]
                items = list(_read(paths, images, masks, maker, dataset, summary))
                _make(items, len(pictures), maker, dataset, summary, record)
                progress.update(start + len(paths), kept=summary.kept)
    return summary


def _find_pictures(images: Path) -> list[Path]:
    if not images.is_dir():
        raise InputError(f"{images}: no such folder of pictures")
    pictures = sorted(p for p in images.rglob("*") if is_picture(p) and p.is_file())
    if not pictures:
        raise InputError(f"{images}: holds no pictures (PNG, JPEG, TIFF or BMP)")
    return pictures


def _read(
    paths: Sequence[tuple[int, Path]],
    images: Path,
    masks: Path | None,
    maker: _Maker,
    dataset: Dataset,
    summary: Summary,
) -> Iterator[_Item]:
    """Read pictures and masks; those that are done or cannot be used are left out."""
    for index, path in paths:
        source = _relative(path, images)
        samples = range(maker.job.count)
        if all((source, k) in dataset.done for k in samples):
            summary.kept += len(samples)
            continue
        try:
            picture = read_picture(path)
            size = picture.shape[0], picture.shape[1]
            if masks:
                mask_file = find_mask(path, images, masks)
                mask, mask_name = read_mask(mask_file, size), _relative(mask_file, masks)
            else:
                mask, mask_name = maker.draw_mask(source, size), "drawn"
        except InputError as fault:
            summary.skipped.append(str(fault))
            continue
        yield _Item(index, source, mask_name, picture, mask, maker.window(mask))


def _make(
    items: list[_Item],
    pictures: int,
    maker: _Maker,
    dataset: Dataset,
    summary: Summary,
    job: dict[str, Any],
) -> None:
    """Make and write all samples of a few pictures."""
    if not items:
        return
    start = monotonic()
    made = maker(items)
    seconds = (monotonic() - start) / sum(map(len, made))
    for item, results in zip(items, made, strict=True):
        dataset.add_good(_number(item.index, pictures), item.picture)
        for k, result in enumerate(results):
            name = _number(item.index * len(results) + k, pictures * len(results))
            if not result.label.any():
                summary.empty.append(f"{item.source}: no defect appeared in sample {k}")
                continue
            picture, label, figures = maker.finish(item, result)
            dataset.add(
                name,
                picture,
                label,
                {
                    "source": item.source,
                    "mask": item.mask_file,
                    "sample": k,
                    "defect": job["defect"],
                    "seed": job["seed"],
                    "steps": job["steps"],
                    "background": job["background"],
                    "engine": job["engine"],
                    "window": asdict(item.window),
                    **figures,
                    "seconds": round(seconds, 4),
                },
            )
            summary.kept += 1


def _relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _number(index: int, total: int) -> str:
    """A zero-padded name that depends on the place in the folder alone."""
    return str(index).zfill(max(3, len(str(total - 1))))


class _Maker:
    """The method on a few pictures: encode, invert once, generate ``count`` times, decode."""

    def __init__(
        self,
        engine: Engine,
        schedule: Schedule,
        prompts: PromptIndices,
        job: Job,
        defect: str,
    ) -> None:
        self._engine, self._schedule, self._prompts = engine, schedule, prompts
        self.job, self._defect = job, defect

    def draw_mask(self, source: str, size: tuple[int, int]) -> Mask:
        """A mask for a picture that has none; a function of the seed and its name alone."""
        rng = np.random.default_rng([self.job.seed, item_id(source)])
        return draw_mask(self._defect, size, self._engine.manifest.image.height, rng)

    def window(self, mask: Mask) -> Window:
        """The window for a mask."""
        return place_window(mask, self._engine.manifest.image.height, self.job.context)

    def __call__(self, items: list[_Item]) -> list[list[_Result]]:
        """Results of every item, ``count`` each."""
        engine, count = self._engine, self.job.count
        image, latent = engine.manifest.image, engine.manifest.latent
        crops = [to_model(self._crop(item, item.picture), image.height) for item in items]
        mask = np.stack(
            [
                latent_mask(self._crop(item, item.mask), latent.height, latent.width)
                for item in items
            ]
        )
        z0 = engine.encode(np.stack(crops))
        path = invert(engine.step, z0, mask, self._rows(len(items)), self._schedule)
        mask, good = np.repeat(mask, count, axis=0), np.repeat(z0, count, axis=0)
        generated = generate(
            engine.step,
            repeat(path, count),
            mask,
            self._noise(items, z0.shape[1:]),
            self._rows(len(mask)),
            self._schedule,
            self.job.background,
        )
        before = np.repeat(engine.decode(z0), count, axis=0)
        after = engine.decode(generated.latent)
        drift = np.abs((1 - mask) * (generated.latent - good)).max(axis=(1, 2, 3))
        results = [
            self._result(items[i // count], crops[i // count], *row)
            for i, row in enumerate(zip(before, after, generated.attention, drift, strict=True))
        ]
        return [results[i : i + count] for i in range(0, len(results), count)]

    def _crop(self, item: _Item, array: Any) -> Any:
        return item.window.crop(array)

    def _rows(self, n: int) -> Prompts:
        p = self._prompts
        return Prompts(*(np.full(n, i, np.int64) for i in (p.defect, p.background, p.masked)))

    def _noise(self, items: list[_Item], shape: tuple[int, ...]) -> Floats:
        return np.stack(
            [
                normal(self.job.seed, item_id(item.source), k, shape)
                for item in items
                for k in range(self.job.count)
            ]
        )

    def _result(
        self,
        item: _Item,
        crop: Floats,
        before: Floats,
        after: Floats,
        attention: Floats,
        drift: np.float32,
    ) -> _Result:
        """The change in picture units and the label, both in the window.

        The good picture goes through the decoder too, so that what the autoencoder itself
        alters is in neither the change nor the label.
        """
        side, mask = item.window.side, self._crop(item, item.mask)
        change = from_model(after, side) - from_model(before, side)
        amount = np.abs(change).max(axis=2)
        label = refine(mask, attention[0], amount, self.job.refinement)
        if self.job.blend == "decoded":
            change = from_model(after, side) - from_model(crop, side)
        figures = {
            "latent_outside_error": float(drift),
            "visibility": float(amount[label].mean()) if label.any() else 0.0,
        }
        return _Result(change, label, figures)

    def finish(self, item: _Item, result: _Result) -> tuple[Bits, Mask, dict[str, float]]:
        """The whole picture with the defect, its label, and the figures of the sample."""
        weight = feather(item.mask, self.job.grow, self.job.feather)
        crop = composite(self._crop(item, item.picture), result.change, self._crop(item, weight))
        picture, label = item.picture.copy(), np.zeros_like(item.mask)
        item.window.paste(picture, crop)
        item.window.paste(label, result.label)
        moved = (picture != item.picture).any(axis=2)
        return (
            picture,
            label,
            {
                "mask_area": int(item.mask.sum()),
                "refined_area": int(label.sum()),
                "changed_area": int(moved.sum()),
                "changed_outside_band": int(moved[weight == 0].sum()),
                **result.figures,
            },
        )


@contextmanager
def _interrupt() -> Iterator[threading.Event]:
    """An event that Ctrl-C sets, so that the pictures at hand are finished first."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.signal(signal.SIGINT, lambda *_: stop.set())
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
