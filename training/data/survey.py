"""What a handful of defects looks like: sizes, widths, direction; and what will not work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from defectrt.images.types import Bits, Mask, without_alpha
from defectrt.masks.pieces import pieces

from .layouts import GOOD
from .samples import Sample

__all__ = ["Survey", "TypeSurvey", "instances", "is_directed", "strength", "survey"]

#: Coherence of the gradients from which a surface has a direction; 0 none, 1 only stripes.
_DIRECTED = 0.7
#: Good images that are looked at for it.
_LOOKED_AT = 16
#: Two types with all figures within this share of each other look the same.
_ALIKE = 0.15
#: Widths in px of the model's window below which a defect cannot be painted, or not finely.
_LOST, _COARSE = 3.0, 4.0


@dataclass(frozen=True)
class TypeSurvey:
    """One type of defect: how many, and their median figures.

    images     that show it
    instances  defects apart from each other
    longest    longest side of an instance, px
    width      largest thickness of an instance, px
    area       of an instance, px
    strength   5th percentile of the brightness in an instance over the median around it
    """

    images: int
    instances: int
    longest: float
    width: float
    area: float
    strength: float


@dataclass(frozen=True)
class Survey:
    """All types by name, the number of good images, whether the surface has a direction."""

    defect_types: dict[str, TypeSurvey]
    good: int
    directed: bool
    warnings: tuple[str, ...]


def survey(samples: Sequence[Sample], window: int) -> Survey:
    """Look at samples that a model with a ``window`` in px is to learn from."""
    found, warnings = {}, list[str]()
    for defect_type in sorted({s.defect_type for s in samples} - {GOOD}):
        own = [s for s in samples if s.defect_type == defect_type]
        found[defect_type] = _look(own, window)
        warnings += _faults(defect_type, own, found[defect_type], window)
    warnings += _alike(found)
    good = [s for s in samples if s.defect_type == GOOD]
    return Survey(found, len(good), is_directed(good or samples), tuple(warnings))


def instances(sample: Sample, window: int) -> list[Mask]:
    """The defects of one image that lie apart, each tight [h,w]."""
    return [piece.shape for piece in pieces(sample.mask, max(1, window // 4))]


def _look(samples: Sequence[Sample], window: int) -> TypeSurvey:
    shapes = [shape for sample in samples for shape in instances(sample, window)]
    return TypeSurvey(
        images=len(samples),
        instances=len(shapes),
        longest=float(np.median([max(shape.shape) for shape in shapes])),
        width=float(np.median([_width(shape) for shape in shapes])),
        area=float(np.median([shape.sum() for shape in shapes])),
        strength=float(np.median([strength(s.image, s.mask) for s in samples])),
    )


def _faults(
    defect_type: str, samples: Sequence[Sample], found: TypeSurvey, window: int
) -> Iterator[str]:
    """What a quality engineer should know before time is spent."""
    wide = [s.path.name for s in samples if s.mask.mean() > 0.5]
    if wide:
        yield (
            f"{defect_type}: the mask of {wide[0]} covers more than half of the picture; a mask "
            "marks the defect alone"
        )
    if found.width < _LOST:
        yield (
            f"{defect_type}: the defects are {found.width:.1f} px thin, less than the "
            f"{_LOST:.0f} px that can be painted; take pictures at a higher resolution"
        )
    elif found.width < _COARSE:
        yield (
            f"{defect_type}: the defects are {found.width:.1f} px thin and will come out softer "
            "than they are; pictures at a higher resolution help"
        )
    if found.longest > 2 * window:
        yield (
            f"{defect_type}: the defects are {found.longest:.0f} px long, and the model sees "
            f"{window} px at once; they are painted in tiles, and large forms are not learned"
        )
    if found.images < 5:
        yield f"{defect_type}: {found.images} examples; 5 to 10 are needed to tell what varies"
    if len(samples) > 1 and len({s.image.tobytes() for s in samples}) == 1:
        yield f"{defect_type}: all examples are the same picture"


def _alike(found: dict[str, TypeSurvey]) -> Iterator[str]:
    names = list(found)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            pairs = [
                (getattr(found[one], key), getattr(found[other], key))
                for key in ("longest", "width", "area", "strength")
            ]
            if all(abs(a - b) <= _ALIKE * max(abs(a), abs(b)) for a, b in pairs):
                yield f"{one} and {other} look the same in size and strength; are they one type?"


def _width(shape: Mask) -> float:
    padded = np.pad(shape, 1).astype(np.uint8)
    inside = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return 2 * float(inside.max()) - 1


def strength(image: Bits, mask: Mask) -> float:
    """5th percentile of the brightness in a defect over the median around it; 1: none is around.

    image [H,W,C], mask [H,W] of the defect.
    """
    grey, inside = _grey(image), mask.astype(np.uint8)
    ring = (cv2.dilate(inside, np.ones((17, 17), np.uint8)) > 0) & (
        cv2.dilate(inside, np.ones((5, 5), np.uint8)) == 0
    )
    if not ring.any():
        return 1.0
    around = float(np.median(grey[ring]))
    return float(np.percentile(grey[mask], 5)) / max(around, 1e-3)


def _grey(image: Bits) -> np.ndarray:
    colour = without_alpha(image).astype(np.float32) / np.iinfo(image.dtype).max
    return colour.reshape(*colour.shape[:2], -1).mean(axis=2)


def is_directed(samples: Sequence[Sample]) -> bool:
    """Whether the surface has a direction: gradients point one way, by their structure tensor."""
    tensors = []
    for sample in samples[:_LOOKED_AT]:
        grey = cv2.GaussianBlur(_grey(sample.image), (0, 0), 1.0)
        dy, dx = np.gradient(grey)
        clear = ~cv2.dilate(sample.mask.astype(np.uint8), np.ones((9, 9), np.uint8)).astype(bool)
        steep = np.hypot(dy, dx)
        clear &= steep < np.percentile(steep, 99)  # edges of the workpiece are no texture
        tensor = np.array(
            [(dx * dx)[clear].mean(), (dy * dy)[clear].mean(), (dx * dy)[clear].mean()]
        )
        tensors.append(tensor / max(1e-12, tensor[0] + tensor[1]))
    xx, yy, xy = np.mean(tensors, axis=0)
    return float(np.hypot(xx - yy, 2 * xy)) > _DIRECTED
