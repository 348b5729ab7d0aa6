"""How good a run is, measured on images that it has not seen."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from defectrt.diffusion.rows import Floats
from defectrt.errors import InputError
from defectrt.files import write_whole
from defectrt.progress import Progress

from ..data.crops import Augmentation, Batch, Crops
from ..data.samples import GOOD, Sample
from ..models.stable_diffusion import open_model
from ..record import RunRecord, read_record, refuse_seen
from .previews import grid
from .probe import Made, Probe, appearance, outside_error
from .spread import spread_distance

__all__ = ["FEATURES", "Cut", "DefectTypeFigures", "Evaluation", "evaluate", "features"]

#: What is compared between real and made defects; see `features`.
FEATURES = ("contrast", "texture", "edge")
_STILL = Augmentation(flip="none", contrast=0, brightness=0)
#: Crops of one defect type that are made twice, for the diversity.
_TWICE = 4
#: A crop must not be filled by its defect by more than this, or there is nothing around it to
#: compare it with; so many places are tried.
_FILLED, _TRIES = 0.9, 8

#: Crops [B,3,S,S] in about [-1,1], and their masks [B,1,S,S] in {0,1}.
Cut = tuple[Floats, Floats]


@dataclass(frozen=True)
class DefectTypeFigures:
    """One type of defect.

    samples       that were made, each under the mask of a held-out defect
    shown         share of them in which a defect appears
    latent_error  outside the mask: the root mean square of the background branch against what was
                  inverted; latents have unit variance
    outside       outside the mask: the root mean square of the result against the image, in
                  grey levels of 255
    autoencoder   the part of it that is the autoencoder's
    diversity     mean difference under the mask of two results that differ in their noise, in
                  grey levels
    real, made    medians of the `features` of held-out and of made defects
    distance      between the two distributions of each feature, see `spread_distance`
    """

    samples: int
    shown: float
    latent_error: float
    outside: float
    autoencoder: float
    diversity: float
    real: dict[str, float]
    made: dict[str, float]
    distance: dict[str, float]


@dataclass(frozen=True)
class Evaluation:
    """A run on held-out images; ``skipped`` are defect types that were not measured, and why."""

    run: str
    steps: int
    seed: int
    images: int
    defect_types: dict[str, DefectTypeFigures]
    skipped: dict[str, str]


def evaluate(
    run: Path,
    samples: Sequence[Sample],
    *,
    out: Path | None = None,
    count: int = 16,
    steps: int = 20,
    batch_size: int = 4,
    seed: int = 0,
    device: str = "cpu",
    quiet: bool = True,
    compared: Callable[[str, Cut, Cut, Cut | None], None] | None = None,
    learned: Sequence[Sample] = (),
) -> Evaluation:
    """Measure the model of ``run`` on held-out samples, up to ``count`` masks a defect type.

    Defects are made on held-out good images where there are any, else on the defective ones.
    ``out`` (by default ``run/evaluation``) gets evaluation.json and samples.png: original, mask
    and result. ``compared`` is called with every type and its crops: made ones, real ones, and
    those of ``learned``, which the run has learned from. Raises `InputError` if the run, or a run
    that it builds on, has learned from any of the samples, or if they show no defect type that it
    knows.
    """
    refuse_seen(samples, run)
    record = read_record(run)
    texts = {p.name: p.text for p in record.prompts if p.role == "defect"}
    shared = {p.role: p.text for p in record.prompts if p.role != "defect"}
    there = sorted({s.defect_type for s in samples} - {GOOD})
    defect_types = [defect_type for defect_type in there if defect_type in texts]
    if not defect_types:
        raise InputError(
            f"{run}: makes {', '.join(sorted(texts)) or 'no defects'}; the held-out images show "
            f"{', '.join(there) or 'none'}"
        )
    probe = Probe(
        open_model(run / "model"),
        sorted(set(texts.values())),
        background_prompt=shared["background"],
        masked_prompt=shared["masked"],
        steps=steps,
        device=device,
    )
    good = [s for s in samples if s.defect_type == GOOD]
    skipped = {
        defect_type: "the run was not trained for it"
        for defect_type in there
        if defect_type not in texts
    }
    figures, columns, rows = {}, list[list[Floats]](), list[str]()
    with Progress(len(defect_types), "evaluate", quiet=quiet) as progress:
        for done, defect_type in enumerate(defect_types, 1):
            crops = _crops(
                [s for s in samples if s.defect_type == defect_type], good, record, count, seed
            )
            if crops is None:
                skipped[defect_type] = f"its defects fill the window of {record.image_size} px"
                continue
            fills = record.magnify != "fit"
            figures[defect_type], made = _measure(
                probe, *crops, texts[defect_type], batch_size, seed, fills=fills
            )
            columns.append(_shown(crops, made))
            if compared:
                own = [s for s in learned if s.defect_type == defect_type]
                known = _crops(own, (), record, count, seed) if own else None
                pixels, mask, _ = crops
                compared(defect_type, (made.after, mask), (pixels, mask), known and known[:2])
            rows += [defect_type] * len(columns[-1][0])
            progress.update(done, defect_type=defect_type, shown=figures[defect_type].shown)
    if not figures:
        raise InputError(f"{run}: nothing can be measured: every defect fills the window")
    result = Evaluation(str(run), steps, seed, len(samples), figures, skipped)
    shown = [np.concatenate(column) for column in zip(*columns, strict=True)]
    _write(out or run / "evaluation", result, shown, rows)
    return result


def features(pixels: Floats, mask: Floats) -> NDArray[np.float64]:
    """The `FEATURES` of the defect in each crop, [B,3].

    pixels [B,3,S,S] in about [-1,1]; mask [B,1,S,S] in {0,1}, never all the same. Against the
    ring of pixels around the mask: *contrast*, how much brighter the defect is, in grey levels;
    *texture*, the ratio of standard deviations; *edge*, the ratio of the mean gradients along
    the mask's border.
    """
    return np.array([_features(*row) for row in zip(pixels, mask[:, 0], strict=True)])


_Crops = tuple[Floats, Floats, Floats]


def _crops(
    defects: Sequence[Sample], good: Sequence[Sample], record: RunRecord, count: int, seed: int
) -> _Crops | None:
    """Real crops with their masks, and the crops to paint on, each up to ``count``; or none."""
    order = np.random.default_rng(seed).permutation(len(defects)).tolist()
    found = (_crop(_still([defects[i]], record, seed)) for i in order)
    real = list(islice((crop for crop in found if crop is not None), count))
    if not real:
        return None
    pixels = np.concatenate([b.pixels for b in real])
    mask = np.concatenate([b.mask for b in real])
    if not good:
        return pixels, mask, pixels
    canvas = _still(good, record, seed).batch(0, len(real))
    return pixels, mask, canvas.pixels


def _still(samples: Sequence[Sample], record: RunRecord, seed: int) -> Crops:
    return Crops(samples, record.image_size, seed=seed, magnify=record.magnify, augmentation=_STILL)


def _crop(crops: Crops) -> Batch | None:
    """A crop around the defect with something of its surroundings in view, if there is one."""
    tried = (crops.batch(step, 1) for step in range(_TRIES))
    return next((batch for batch in tried if batch.mask.mean() <= _FILLED), None)


def _measure(
    probe: Probe,
    real: Floats,
    mask: Floats,
    canvas: Floats,
    text: str,
    batch_size: int,
    seed: int,
    *,
    fills: bool,
) -> tuple[DefectTypeFigures, Made]:
    made = _make(probe, canvas, mask, text, batch_size, seed)
    few = slice(0, _TWICE)
    again = _make(probe, canvas[few], mask[few], text, batch_size, seed + 1)
    inside = mask[few]
    moved = (np.abs(again.after - made.after[few]) * inside).sum() / (3 * inside.sum())
    of_real, of_made = features(probe.restore(real), mask), features(made.after, mask)
    return DefectTypeFigures(
        samples=len(real),
        shown=float(appearance(made.before, made.after, mask, fills=fills).mean()),
        latent_error=float(made.latent_error.mean()),
        outside=127.5 * float(outside_error(made.after, canvas, mask).mean()),
        autoencoder=127.5 * float(outside_error(made.before, canvas, mask).mean()),
        diversity=127.5 * float(moved),
        real=_named(np.median(of_real, axis=0)),
        made=_named(np.median(of_made, axis=0)),
        distance=_named(spread_distance(of_real, of_made)),
    ), made


def _make(
    probe: Probe, canvas: Floats, mask: Floats, text: str, batch_size: int, seed: int
) -> Made:
    parts = [range(i, min(i + batch_size, len(canvas))) for i in range(0, len(canvas), batch_size)]
    made = [
        probe.make(
            canvas[p.start : p.stop], mask[p.start : p.stop], [text] * len(p), seed=seed, items=p
        )
        for p in parts
    ]
    return Made(*(np.concatenate([getattr(m, f) for m in made]) for f in Made.__annotations__))


def _features(pixels: Floats, mask: Floats) -> tuple[float, float, float]:
    """[3,S,S] and [S,S]; the ring is as wide as the mask's reach, at least 4 px."""
    grey = 127.5 * pixels.mean(axis=0)
    inside = mask > 0
    wide = max(4, round(float(np.sqrt(inside.sum())) / 2))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * wide + 1, 2 * wide + 1))
    ring = (cv2.dilate(mask, kernel) > 0) & ~inside
    ring = ring if ring.any() else ~inside
    slope = np.hypot(cv2.Sobel(grey, -1, 1, 0, scale=1 / 8), cv2.Sobel(grey, -1, 0, 1, scale=1 / 8))
    border = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    return (
        float(grey[inside].mean() - grey[ring].mean()),
        float(grey[inside].std() / max(float(grey[ring].std()), 1e-3)),
        float(slope[border].mean() / max(float(slope[ring].mean()), 1e-3)),
    )


def _named(values: NDArray[np.float64]) -> dict[str, float]:
    return dict(zip(FEATURES, map(float, values), strict=True))


def _shown(crops: _Crops, made: Made) -> list[Floats]:
    """The first crops of a defect type: the image, the mask, the result."""
    few = slice(0, _TWICE)
    _, mask, canvas = crops
    return [canvas[few], (2 * mask[few] - 1).repeat(3, axis=1), made.after[few]]


def _write(out: Path, result: Evaluation, columns: Sequence[Floats], rows: Sequence[str]) -> None:
    data = BytesIO()
    Image.fromarray(grid(columns, rows)).save(data, "PNG")
    write_whole(out / "samples.png", data.getvalue())
    text = json.dumps(asdict(result), indent=1, allow_nan=False) + "\n"
    write_whole(out / "evaluation.json", text.encode())
