"""Figures of a detector from histograms of its scores, a picture a row.

A picture's scores come in as how many of its pixels reached each of `LEVELS` levels; every figure
is then a sum over pictures, each with a weight. With weights [B,N] the B bootstrap samples are one
matrix product, and the plain figure is the row of ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from defectrt.images.contrast import strength_in
from defectrt.images.types import Mask

from ..data.layouts import GOOD
from ..data.samples import Sample

__all__ = [
    "LEVELS",
    "TOP",
    "Tally",
    "TestSet",
    "auroc",
    "average_precision",
    "best_f1",
    "errors",
    "figures",
    "histograms",
    "image_levels",
    "level_of",
    "pieces_of",
    "precision_recall",
    "pro",
    "tally_of",
    "test_set",
]

#: Levels of a score, and the largest logit that is told from larger ones.
LEVELS, TOP = 512, 12.0
#: False positives up to which regions are counted, as usual for PRO.
_PRO_LIMIT = 0.3
#: px a side of the mean that an image's score is the largest of.
_SMOOTH = 5
THIRDS = {"size": ("small", "middle", "large"), "contrast": ("faint", "middle", "strong")}

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class TestSet:
    """What is to be found: N pictures, and P defects that lie apart.

    names, types, workpieces  of the pictures
    picture                   [P] of each defect
    area, contrast            [P] of each defect, px; share by which it is darker than around it
    """

    names: tuple[str, ...]
    types: NDArray[np.str_]
    workpieces: NDArray[np.int64]
    picture: NDArray[np.int64]
    area: Floats
    contrast: Floats

    def thirds(self) -> dict[str, NDArray[np.bool_]]:
        """Which defects are in each third by size and by contrast, by ``size small`` and so on."""
        found: dict[str, NDArray[np.bool_]] = {}
        for what, values in (("size", self.area), ("contrast", self.contrast)):
            low, high = np.quantile(values, (1 / 3, 2 / 3))
            parts = (values <= low, (values > low) & (values <= high), values > high)
            found |= {
                f"{what} {name}": part for name, part in zip(THIRDS[what], parts, strict=True)
            }
        return found


@dataclass(frozen=True)
class Tally:
    """What a detector said: histograms of levels.

    image     [N] score of each picture
    negative  [N,K] sound pixels of each picture
    positive  [P,K] pixels of each defect
    """

    image: Floats
    negative: NDArray[np.int64]
    positive: NDArray[np.int64]


def test_set(samples: Sequence[Sample], workpieces: Sequence[int]) -> TestSet:
    """The pictures of a test side, and the defects in them: connected areas, 8 neighbours."""
    found = [
        (i, float(piece.sum()), strength_in(sample.image, piece) or 0.0)
        for i, sample in enumerate(samples)
        for piece in pieces_of(sample.mask)
    ]
    columns = list(zip(*found, strict=True)) or [(), (), ()]
    return TestSet(
        tuple(f"{s.defect_type}/{s.path.name}" for s in samples),
        np.array([s.defect_type for s in samples]),
        np.array(workpieces, np.int64),
        np.array(columns[0], np.int64),
        np.array(columns[1]),
        np.array(columns[2]),
    )


def level_of(logits: NDArray[np.float32]) -> NDArray[np.int64]:
    """Level of each logit, 0 to `LEVELS` - 1."""
    part = (np.clip(logits, -TOP, TOP) + TOP) / (2 * TOP)
    return np.minimum(part * LEVELS, LEVELS - 1).astype(np.int64)


def histograms(
    logits: NDArray[np.float32], mask: Mask
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many pixels in the mask, and outside it, are of each level: two of [K]."""
    levels = level_of(logits)
    return tuple(np.bincount(levels[part], minlength=LEVELS) for part in (mask, ~mask))  # type: ignore[return-value]


def tally_of(samples: Sequence[Sample], scores: Iterable[NDArray[np.float32]]) -> Tally:
    """Count the logits [H,W] of each picture, in the order of `test_set`."""
    image, negative, positive = [], [], list[NDArray[np.int64]]()
    for sample, logits in zip(samples, scores, strict=True):
        negative.append(histograms(logits, sample.mask)[1])
        positive += [histograms(logits, piece)[0] for piece in pieces_of(sample.mask)]
        image.append(float(cv2.blur(logits, (_SMOOTH, _SMOOTH)).max()))
    return Tally(
        np.array(image), np.stack(negative), np.array(positive, np.int64).reshape(-1, LEVELS)
    )


def precision_recall(positive: Floats, negative: Floats) -> tuple[Floats, Floats]:
    """Precision and recall [B,K] from the highest level down; positive, negative [B,K] pixels."""
    true, false = (np.cumsum(side[:, ::-1], axis=1, dtype=float) for side in (positive, negative))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(true + false > 0, true / (true + false), 1.0), true / true[:, -1:]


def average_precision(positive: Floats, negative: Floats) -> Floats:
    """[B]: the sum over levels of precision times the recall that the level adds; NaN: nothing."""
    precision, recall = precision_recall(positive, negative)
    return (np.diff(recall, axis=1, prepend=0) * precision).sum(axis=1)


def best_f1(positive: Floats, negative: Floats) -> Floats:
    """[B]: the largest harmonic mean of precision and recall at any level."""
    precision, recall = precision_recall(positive, negative)
    return (2 * precision * recall / np.maximum(precision + recall, 1e-12)).max(axis=1)


def pro(overlap: Floats, negative: Floats) -> Floats:
    """[B]: per-region overlap up to 30 % of false positives (Bergmann et al. 2020), over that.

    overlap [B,K]: the share of a region that is of each level, summed over regions.
    """
    covered = np.cumsum(overlap[:, ::-1], axis=1)
    false = np.cumsum(negative[:, ::-1], axis=1, dtype=float)
    with np.errstate(invalid="ignore", divide="ignore"):
        covered, false = covered / covered[:, -1:], false / false[:, -1:]
    return np.array([_area(x, y) for x, y in zip(false, covered, strict=True)])


def auroc(positive: Floats, negative: Floats) -> Floats:
    """[B]: the chance that a defect's pixel scores above a sound one, ties counting half."""
    below = np.cumsum(negative, axis=1, dtype=float) - negative / 2
    with np.errstate(invalid="ignore"):
        return (positive * below).sum(axis=1) / (positive.sum(axis=1) * negative.sum(axis=1))


def image_levels(
    score: Floats, defective: NDArray[np.bool_], weights: Floats
) -> tuple[Floats, Floats]:
    """How many defective, and how many good pictures are of each score: two of [B,K], rising.

    score, defective [N]; weights [B,N].
    """
    values, level = np.unique(score, return_inverse=True)
    of_level = np.eye(len(values))[level]
    return (weights * defective) @ of_level, (weights * ~defective) @ of_level


def figures(test: TestSet, tally: Tally, weights: Floats) -> dict[str, Floats]:
    """All figures [B] by name, for weights [B,N] of the pictures.

    ``pixel_ap``, ``pixel_f1``, ``pixel_auroc`` and ``pro`` of all pixels; ``image_auroc``,
    ``image_ap`` and ``image_f1`` of the pictures; ``pixel_ap TYPE`` of a type and the good ones;
    ``pixel_ap size small`` and so on of a third of the defects, with the sound
    pixels of all pictures.
    """
    of_piece = weights[:, test.picture]
    positive, negative = of_piece @ tally.positive, weights @ tally.negative
    share = tally.positive / np.maximum(test.area, 1)[:, None]
    of_images = image_levels(tally.image, test.types != GOOD, weights)
    found = {
        "pixel_ap": average_precision(positive, negative),
        "pixel_f1": best_f1(positive, negative),
        "pro": pro(of_piece @ share, negative),
        "pixel_auroc": auroc(positive, negative),
        "image_auroc": auroc(*of_images),
        "image_ap": average_precision(*of_images),
        "image_f1": best_f1(*of_images),
    }
    for name in sorted(set(test.types.tolist()) - {GOOD}):
        shown = (test.types == name) | (test.types == GOOD)
        own = (of_piece * (test.types == name)[test.picture]) @ tally.positive
        found[f"pixel_ap {name}"] = average_precision(own, (weights * shown) @ tally.negative)
    for name, part in test.thirds().items():
        own = (of_piece * part) @ tally.positive
        found[f"pixel_ap {name}"] = average_precision(own, negative)
    return found


def errors(test: TestSet, tally: Tally) -> dict[str, float]:
    """Where the errors lie at the level of the best pixel F1.

    hit            share of the defects of which any pixel is found
    covered        share of a defect that is found, mean of those that are hit
    alarms         share of the good pictures in which anything is found
    false_on_good  share of the wrong pixels that lie on good pictures
    """
    positive, negative = (side.sum(axis=0)[None] for side in (tally.positive, tally.negative))
    precision, recall = precision_recall(positive, negative)
    best = np.argmax(precision * recall / np.maximum(precision + recall, 1e-12))
    found, wrong = (
        side[:, LEVELS - 1 - best :].sum(axis=1) for side in (tally.positive, tally.negative)
    )
    good, hit = test.types == GOOD, found > 0
    return {
        "hit": float(hit.mean()),
        "covered": float((found / test.area)[hit].mean()) if hit.any() else 0.0,
        "alarms": float((wrong[good] > 0).mean()),
        "false_on_good": float(wrong[good].sum() / max(1, wrong.sum())),
    }


def pieces_of(mask: Mask) -> list[Mask]:
    """The defects of a label [H,W] that lie apart: connected areas, 8 neighbours."""
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    return [labels == i for i in range(1, count)]


def _area(false: Floats, covered: Floats) -> float:
    """Under the curve from (0, 0) to the limit, over the limit."""
    x, y = np.concatenate([[0.0], false]), np.concatenate([[0.0], covered])
    at = np.interp(_PRO_LIMIT, x, y)
    inside = x < _PRO_LIMIT
    return float(np.trapezoid([*y[inside], at], [*x[inside], _PRO_LIMIT]) / _PRO_LIMIT)
