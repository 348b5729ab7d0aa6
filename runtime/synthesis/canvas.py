"""An image on which defects are being painted, tile by tile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..config.synthesis import SynthesisConfig
from ..diffusion.rows import Floats
from ..images.compositing import composite, feather
from ..images.contrast import grey
from ..images.types import Bits, Mask, Pixels, channel_max, differs
from ..images.window import Window, from_model, to_model
from ..masks.resizing import latent_mask
from .acceptance import fault, score, seen
from .refinement import appeared, refine
from .strength import brightness_around, strengthened
from .tiles import Tile

__all__ = ["Candidate", "Canvas", "View"]


@dataclass(frozen=True)
class Candidate:
    """A tile as it could be: change [S,S,3] of the image, and the label [S,S] under the mask.

    ``reason`` says why it is not fit, if so.
    """

    number: int
    change: Pixels
    label: Mask
    figures: dict[str, float]
    score: float
    reason: str | None


class View:
    """What the model sees of an image for a tile, and what a result does to it."""

    def __init__(
        self,
        image: Bits,
        tile: Tile,
        config: SynthesisConfig,
        *,
        side: int,
        latent: tuple[int, int],
        wanted: float | None = None,
        whole: bool = False,
        healthy: bool = False,
    ) -> None:
        """``side`` of the model's window in px, ``latent`` (h, w) of its latents.

        ``wanted`` is the defect's strength; by default it is as strong as the model paints it. A
        ``whole`` view is of an image fitted into the window. What is to be ``healthy`` is fit if
        no defect shows, and has no label.
        """
        window = tile.window
        self.tile, self.image = tile, window.crop(image).copy()
        self.pixels = to_model(self.image, side)
        self.latent_mask = latent_mask(tile.mask, *latent)[None]
        self.weight = feather(tile.mask, config.grow, config.feather)
        self._config, self._wanted, self._whole = config, wanted, whole
        self._healthy = healthy
        self._inside = np.zeros(tile.mask.shape, bool)
        height, width = image.shape[:2]
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
    ) -> Candidate:
        """Label and measure a candidate; origin, before and after [3,h,w] are decoded.

        The good image went through the decoder too, so that what the autoencoder itself alters
        is in neither the change nor the label.
        """
        side, config = self.tile.window.side, self._config
        result, good = from_model(after, side), from_model(origin, side)
        amount = channel_max(np.abs(result - good))
        before = self.pixels if config.blend == "decoded" else before
        known = from_model(before, side)
        change = result - known
        shown = appeared(self.tile.mask, good, result, config)
        label = refine(self.tile.mask, attention, shown, config) & self._inside
        if self._healthy:
            label = np.zeros_like(label)
        asked = (self.tile.mask & self._inside).sum()
        fading = (self.weight > 0) & (self.weight < 1) & self._inside
        figures = {
            "visibility": _mean(amount[label]),
            "coverage": float(label.sum() / asked),
            "seam": _mean(channel_max(np.abs(change))[fading]),
            "latent_outside_error": drift,
        }
        share = float((shown & self._inside).sum() / asked)
        why, worth = fault(config, shown=share, fills=not self._whole, **figures), score(**figures)
        if self._healthy:
            why, worth = seen(config, share), 1 - share
        if self._whole and not why:
            change = change - self._lost(known, label)
        factor, figures["strength"] = self._strengthened(change, label)
        for name in ("visibility", "seam"):
            figures[name] *= factor
        return Candidate(number, np.float32(factor) * change, label, figures, worth, why)

    def _lost(self, known: Pixels, label: Mask) -> Pixels:
        """What of the image is not ``known`` to the model, where a defect is: [S,S,3].

        It is too fine for the model's window. Were it left there, a part that is gone would leave
        its edges behind.
        """
        side = self.tile.window.side
        lost = from_model(to_model(self.image, side), side) - known
        px = side / self.pixels.shape[-1]
        return np.asarray(lost * feather(label, px, px)[..., None], np.float32)

    @cached_property
    def _levels(self) -> Pixels:
        return grey(self.image)

    @cached_property
    def _around(self) -> float:
        return brightness_around(self._levels, self.tile.mask, self._inside)

    def _strengthened(self, change: Pixels, label: Mask) -> tuple[float, float]:
        """By how much to multiply a change, and how strong the defect is then."""
        return strengthened(
            self._levels[label],
            self.weight[label] * change[label].mean(axis=1),
            self._around,
            wanted=self._wanted,
            visible=self._config.min_change,
        )


class Canvas:
    """A good image on which defects are being painted.

    image  [H,W,C]
    label  [H,W], where a defect is
    band   [H,W], where the image may differ from its source
    tiles  what became of each tile
    """

    def __init__(self, source: Bits) -> None:
        """Nothing is painted yet; the source stays as it is."""
        self._source, self.image = source, source.copy()
        self.label, self.band = np.zeros((2, *source.shape[:2]), bool)
        self.tiles: list[dict[str, Any]] = []

    def is_untouched(self, tile: Tile) -> bool:
        """Whether nothing was painted yet in what the model sees for a tile."""
        return not tile.window.crop(self.band).any()

    def shows(self, instance: Mask) -> bool:
        """Whether any of an instance became label."""
        return bool((self.label & instance).any())

    def paint(self, view: View, candidate: Candidate) -> None:
        """Paint a candidate of a tile, unless it is not fit."""
        window = view.tile.window
        record = {"window": asdict(window), "candidate": candidate.number}
        record |= {"score": candidate.score, "area": int(candidate.label.sum())}
        if candidate.reason:
            record["rejected"] = candidate.reason
        else:
            window.paste(self.image, composite(view.image, candidate.change, view.weight))
            for array, part in ((self.label, candidate.label), (self.band, view.weight > 0)):
                window.paste(array, window.crop(array) | part)
        self.tiles.append(record | candidate.figures)

    def figures(self, instances: Sequence[Mask]) -> dict[str, Any]:
        """What the manifest says of the sample; see `Pipeline.sample`."""
        painted = [tile for tile in self.tiles if "rejected" not in tile]
        weights = [tile["area"] for tile in painted]
        part = self._painted([Window(**tile["window"]) for tile in painted])
        image, source = self.image[part], self._source[part]
        changed = differs(image, source)
        outside = changed & ~self.band[part]
        error = image[outside].astype(int) - source[outside]
        mask_area = int(np.logical_or.reduce(instances).sum())
        return {
            "tiles": self.tiles,
            "mask_area": mask_area,
            "refined_area": int(self.label.sum()),
            "changed_area": int(changed.sum()),
            "outside_error": int(np.abs(error).max(initial=0)),
            "latent_outside_error": max((s["latent_outside_error"] for s in painted), default=0.0),
            "visibility": float(np.average([s["visibility"] for s in painted], weights=weights))
            if any(weights)
            else 0.0,
            "strength": max((s["strength"] for s in painted if s["area"]), default=0.0),
            "coverage": float(self.label.sum() / mask_area),
            "seam": max((s["seam"] for s in painted), default=0.0),
        }

    def _painted(self, windows: Sequence[Window]) -> tuple[slice, slice]:
        """What was written to: nothing else can differ, and a large image takes long to look at."""
        if not windows:
            return slice(0), slice(0)
        return (
            slice(max(0, min(w.y for w in windows)), max(w.y + w.side for w in windows)),
            slice(max(0, min(w.x for w in windows)), max(w.x + w.side for w in windows)),
        )


def _mean(values: Pixels) -> float:
    return float(values.mean()) if values.size else 0.0
