"""Why made defects may not help: what differs between them and the real ones, and what is few."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from defectrt.images.contrast import strength_in
from defectrt.images.types import Mask, brightness

from ..data.layouts import GOOD
from ..data.samples import Sample
from .figures import TestSet

__all__ = ["Looks", "few", "looks", "unlike"]

#: Pictures that are looked at.
_LOOKED_AT = 200
#: Test defects, and workpieces that show them, below which a figure says little.
_FEW_DEFECTS, _FEW_WORKPIECES = 30, 10
#: How much of a contrast just outside a label may differ.
_HALO = 0.15
#: Median ratio of areas from which sizes are unlike.
_TIMES = 2.0

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Looks:
    """Defects of one type, a value a picture.

    area      px of the label
    contrast  share by which the defect is darker than around it
    halo      how much of its contrast is left in the two px around the label: the
              tighter the label, the more
    """

    area: Floats
    contrast: Floats
    halo: Floats

    def quantiles(self) -> dict[str, list[float]]:
        """10th, 50th and 90th percentile of each."""
        return {
            name: [float(q) for q in np.quantile(values, (0.1, 0.5, 0.9))]
            for name, values in vars(self).items()
        }


def looks(samples: Sequence[Sample]) -> dict[str, Looks]:
    """What the defects of each type look like, from at most 200 pictures of it, evenly spread."""
    found = {}
    for name in sorted({s.defect_type for s in samples} - {GOOD}):
        own = [s for s in samples if s.defect_type == name]
        own = own[:: -(-len(own) // _LOOKED_AT)]
        rows = [
            (float(s.mask.sum()), strength_in(s.image, s.mask) or 0.0, _halo(s))
            for s in own
            if s.mask.any()
        ]
        found[name] = Looks(*(np.array(column) for column in zip(*rows, strict=True)))
    return found


def few(test: TestSet) -> Iterator[str]:
    """Types of which too little is tested."""
    for name in sorted(set(test.types.tolist()) - {GOOD}):
        defects = int((test.types[test.picture] == name).sum())
        pieces = len(set(test.workpieces[test.types == name].tolist()))
        if defects < _FEW_DEFECTS or pieces < _FEW_WORKPIECES:
            yield (
                f"{name}: only {defects} defects on {pieces} workpieces are tested; small "
                "differences cannot be told from chance"
            )


def unlike(real: dict[str, Looks], made: dict[str, Looks]) -> Iterator[str]:
    """In what the made defects of a type are unlike the real ones of the train side."""
    for name in sorted(real.keys() - made.keys()):
        yield f"{name}: none are made"
    for name in sorted(real.keys() & made.keys()):
        yield from (f"{name}: {text}" for text in _differences(real[name], made[name]))


def _differences(real: Looks, made: Looks) -> Iterator[str]:
    low, high = real.contrast.min(), real.contrast.max()
    outside = float(((made.contrast < low) | (made.contrast > high)).mean())
    if outside > 0.5:
        yield (
            f"{outside:.0%} of the made ones are fainter or stronger than any real one (contrast "
            f"{np.median(made.contrast):.2f} against {low:.2f} to {high:.2f})"
        )
    times = float(np.median(made.area) / np.median(real.area))
    if not 1 / _TIMES <= times <= _TIMES:
        yield f"the labels of made ones are {times:.1f} times as large as those of real ones"
    halo = float(np.median(made.halo) - np.median(real.halo))
    if abs(halo) > _HALO:
        yield (
            f"made ones are labelled more {'tightly' if halo > 0 else 'loosely'}: just outside the "
            f"label {np.median(made.halo):.0%} of their contrast is left, of real ones "
            f"{np.median(real.halo):.0%}; a detector learns to draw other outlines"
        )


def _halo(sample: Sample) -> float:
    grey = brightness(sample.image)
    inside = sample.mask
    rim, near, far = (_grown(inside, r) for r in (2, 5, 9))
    if not (far & ~near).any() or not (rim & ~inside).any():
        return 0.0
    around = float(np.median(grey[far & ~near]))
    contrast = around - float(grey[inside].mean())
    left = around - float(grey[rim & ~inside].mean())
    return float(np.clip(left / contrast, -1, 2)) if abs(contrast) > 1e-3 * around else 0.0


def _grown(mask: Mask, radius: int) -> Mask:
    side = 2 * radius + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    return cv2.dilate(mask.astype(np.uint8), disc) > 0
