"""Square crops around defects and from good images: the batches of training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from defectrt.config.engine import Magnify
from defectrt.errors import InputError
from defectrt.images.types import Mask
from defectrt.images.window import Window, to_model
from defectrt.masks.resizing import latent_mask

from .layouts import GOOD
from .loosening import loosened
from .samples import Sample

__all__ = ["Augmentation", "Batch", "Crops"]


@dataclass(frozen=True)
class Augmentation:
    """How crops are varied. Nothing is resampled, so masks stay exact.

    flip        which way crops are mirrored, each with a chance of one half
    turn        quarter turns too; not for surfaces with a direction, such as brushed metal
    contrast    largest change of the contrast, as a share of it
    brightness  largest change of the brightness, as a share of the full range
    loose       share of the defects whose mask is a box or a broad stroke around them
    """

    flip: Literal["both", "horizontal", "vertical", "none"] = "both"
    turn: bool = False
    contrast: float = 0.1
    brightness: float = 0.025
    loose: float = 0.0

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        if self.flip not in _AXES:
            raise InputError(f"flip {self.flip!r}: one of {', '.join(_AXES)}")
        shares = self.contrast, self.brightness, self.loose
        if not (self.contrast < 1 and all(0 <= share <= 1 for share in shares)):
            raise InputError("augmentation: contrast, brightness and loose are shares from 0 to 1")


_AXES: dict[str, tuple[int, ...]] = {
    "both": (0, 1),
    "horizontal": (1,),
    "vertical": (0,),
    "none": (),
}


@dataclass(frozen=True)
class Batch:
    """B crops: pixels [B,3,S,S] float32 in [-1,1], mask [B,1,S,S] float32 in {0,1}, their types."""

    pixels: NDArray[np.float32]
    mask: NDArray[np.float32]
    defect_types: tuple[str, ...]


class Crops:
    """Square crops of side ``window``, a pure function of (seed, step): nothing to checkpoint.

    A share ``good`` of every batch comes from good images, from anywhere in them; the rest
    shows the types of defect equally often, with at least one defect pixel in view. Crops are of
    the image's own resolution, or enlarged ``magnify`` times, or (fit) they are whole images;
    images smaller than what a crop shows are extended by reflection.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        window: int,
        *,
        good: float = 0.5,
        seed: int = 0,
        magnify: Magnify = 1,
        augmentation: Augmentation | None = None,
    ) -> None:
        """Take samples of any type; ``good`` in [0,1] counts only when both sorts are there."""
        self._window, self._seed = window, seed
        self._side = None if magnify == "fit" else window // magnify
        self._vary = augmentation or Augmentation()
        self._good = [s for s in samples if s.defect_type == GOOD]
        defect_types = sorted({s.defect_type for s in samples} - {GOOD})
        self._defects = [
            [s for s in samples if s.defect_type == defect_type] for defect_type in defect_types
        ]
        if not samples:
            raise InputError("there are no images to train on; give --good or --defect")
        self._share = good if self._good and defect_types else float(not defect_types)

    def batch(self, step: int, size: int) -> Batch:
        """The batch of ``size`` crops that belongs to ``step``."""
        rng = np.random.default_rng([self._seed, step])
        crops = [self._crop(rng) for _ in range(size)]
        pixels, masks, defect_types = zip(*crops, strict=True)
        return Batch(np.stack(pixels), np.stack(masks), defect_types)

    def _crop(
        self, rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], str]:
        sample, vary = self._draw(rng), self._vary
        image, mask = sample.image, sample.mask
        window = self._place(mask, rng)
        view: Any = window.crop(image)
        pixels = to_model(view, self._window)
        asked: Any = window.crop(mask)
        if vary.loose and rng.random() < vary.loose:
            asked = loosened(asked, rng)
        inside = latent_mask(asked, self._window, self._window)
        gain = rng.uniform(1 - vary.contrast, 1 + vary.contrast)
        shift = rng.uniform(-2 * vary.brightness, 2 * vary.brightness)
        pixels = np.clip(pixels * gain + shift, -1, 1)
        flips = tuple(1 + axis for axis in _AXES[vary.flip] if rng.random() < 0.5)
        turns = int(rng.integers(4)) if vary.turn else 0
        pixels, inside = (
            np.ascontiguousarray(np.rot90(np.flip(a, flips), turns, (1, 2)))
            for a in (pixels, inside)
        )
        return pixels, inside, sample.defect_type

    def _draw(self, rng: np.random.Generator) -> Sample:
        if rng.random() < self._share:
            return self._good[rng.integers(len(self._good))]
        defect_type = self._defects[rng.integers(len(self._defects))]
        return defect_type[rng.integers(len(defect_type))]

    def _place(self, mask: Mask, rng: np.random.Generator) -> Window:
        """Anywhere in a good image; else around a random defect pixel."""
        side = self._side or max(mask.shape)
        room = np.array(mask.shape) - side
        limit = np.maximum(room, 0)
        if mask.any():
            ys, xs = np.nonzero(mask)
            i, inset = rng.integers(len(ys)), side // 8
            offset = rng.integers(inset, side - inset, size=2)
            corner = np.clip(np.array([ys[i], xs[i]]) - offset, 0, limit)
        else:
            corner = rng.integers(limit + 1)
        y, x = np.where(room < 0, -(-room // 2), corner)
        return Window(int(y), int(x), side)
