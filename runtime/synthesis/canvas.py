"""An image on which defects are being painted, tile by tile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..diffusion.rows import Floats
from ..images.compositing import composite, feather
from ..images.types import Bits, Mask, Pixels
from ..images.window import from_model, to_model
from ..masks.resizing import latent_mask
from .acceptance import _fault, _score
from .pipeline import Maker
from .refinement import refine
from .tiles import Stroke

__all__ = []


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
