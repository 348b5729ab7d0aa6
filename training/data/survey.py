"""What a handful of defects looks like: sizes, widths, direction; and what will not work."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from defectrt.images.contrast import grey, strength_in, surroundings
from defectrt.images.types import Mask
from defectrt.masks.examples import Examples, runs_one_way
from defectrt.masks.pieces import Piece, pieces
from defectrt.masks.placement import paste
from defectrt.masks.places import look

from .layouts import GOOD
from .samples import Sample

__all__ = ["Survey", "TypeSurvey", "examples_of", "is_directed", "survey"]

#: Coherence of the gradients from which a surface has a direction; 0 none, 1 only stripes.
_DIRECTED = 0.7
#: Good images that are looked at for it.
_LOOKED_AT = 16
#: Two types with all figures within this share of each other look the same.
_ALIKE = 0.15
#: Thickness in px of the model's window below which a defect comes out softer than it is.
_FINE = 3.0

#: Share of a defect's own contrast from which a px counts as thick; samples a px to measure it.
_HALF, _FINER = 0.5, 3


@dataclass(frozen=True)
class TypeSurvey:
    """One type of defect: how many, and their median figures.

    images     that show it
    instances  defects apart from each other
    longest    longest side of an instance, px
    width      largest thickness of an instance's mask, px
    thickness  of what is at least half as dark or bright as its strongest px, px
    area       of an instance, px
    strength   contrast of an instance to its surroundings, see `defectrt.images.contrast`
    """

    images: int
    instances: int
    longest: float
    width: float
    thickness: float
    area: float
    strength: float


@dataclass(frozen=True)
class Survey:
    """All types by name, the number of good images, whether the surface has a direction.

    magnify   how many times the images should be enlarged for the finest type, 1, 2 or 4
    """

    defect_types: dict[str, TypeSurvey]
    good: int
    directed: bool
    magnify: Literal[1, 2, 4]
    warnings: tuple[str, ...]


def survey(samples: Sequence[Sample], window: int, cell: int) -> Survey:
    """Look at samples that a model is to learn from.

    ``window`` is the side that it sees, ``cell`` that of a cell of its latents, in px.
    """
    names = sorted({s.defect_type for s in samples} - {GOOD})
    by_name = {name: [s for s in samples if s.defect_type == name] for name in names}
    found = {name: _look(own, window) for name, own in by_name.items()}
    magnify = _magnify(found.values(), cell)
    warnings = [
        fault
        for name, own in by_name.items()
        for fault in _faults(name, own, found[name], window, magnify)
    ]
    warnings += _alike(found)
    good = [s for s in samples if s.defect_type == GOOD]
    return Survey(found, len(good), is_directed(good or samples), magnify, tuple(warnings))


def _magnify(found: Iterable[TypeSurvey], cell: int) -> Literal[1, 2, 4]:
    """The least at which the finest type is no thinner than can be painted well."""
    finest = min((one.thickness for one in found), default=_FINE)
    possible: tuple[Literal[1, 2, 4], ...] = (1, 2, 4)
    possible = tuple(times for times in possible if times <= cell)
    return next((times for times in possible if times * finest >= _FINE), possible[-1])


def examples_of(samples: Sequence[Sample], window: int, found: Survey) -> Examples:
    """What the samples of one type say of the masks that are to be drawn for it.

    They are not turned if the surface has a direction, nor if they themselves run one way.
    """
    found_in = [_instances(sample, window) for sample in samples]
    masks = [piece.shape for own in found_in for piece in own]
    strengths = [
        strength_in(sample.image, paste(piece.shape, piece.corner, sample.mask.shape))
        for sample, own in zip(samples, found_in, strict=True)
        for piece in own
    ]
    return Examples.of(
        masks,
        [one for one in strengths if one is not None],
        directed=found.directed or runs_one_way(masks),
        places=look((sample.image, sample.mask) for sample in samples),
        instances=[len(own) for own in found_in],
    )


def _instances(sample: Sample, window: int) -> list[Piece]:
    """The defects of one image that lie apart."""
    return pieces(sample.mask, max(1, window // 4))


def _look(samples: Sequence[Sample], window: int) -> TypeSurvey:
    shapes = [piece.shape for sample in samples for piece in _instances(sample, window)]
    return TypeSurvey(
        images=len(samples),
        instances=len(shapes),
        longest=float(np.median([max(shape.shape) for shape in shapes])),
        width=float(np.median([_width(shape) for shape in shapes])),
        thickness=float(np.median([_thickness(sample) for sample in samples])),
        area=float(np.median([shape.sum() for shape in shapes])),
        strength=float(np.median([strength_in(s.image, s.mask) or 0.0 for s in samples])),
    )


def _faults(
    defect_type: str, samples: Sequence[Sample], found: TypeSurvey, window: int, magnify: int
) -> Iterator[str]:
    """What a quality engineer should know before time is spent."""
    wide = [s.path.name for s in samples if s.mask.mean() > 0.5]
    if wide:
        yield (
            f"{defect_type}: the mask of {wide[0]} covers more than half of the picture; a mask "
            "marks the defect alone"
        )
    if magnify * found.thickness < _FINE:
        yield (
            f"{defect_type}: the defects are {found.thickness:.1f} px thin and will come out "
            "softer than they are; pictures at a higher resolution help"
        )
    seen = 2 * window if magnify == 1 else window // magnify
    if found.longest > seen:
        yield (
            f"{defect_type}: the defects are {found.longest:.0f} px long, and the model sees "
            f"{window // magnify} px at once; they are painted in tiles, and large forms are not "
            "learned"
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


def _thickness(sample: Sample) -> float:
    """Of the px in the mask that are at least half as far from the surroundings as its furthest.

    Masks are drawn wider than what they mark.
    """
    levels = grey(sample.image)
    around = surroundings(levels, sample.mask)
    if around is None:
        return _width(sample.mask)
    away = np.where(sample.mask, np.abs(levels - around), 0)
    strong = away >= _HALF * np.percentile(away[sample.mask], 95)
    fine = np.pad(strong & sample.mask, 1).astype(np.uint8).repeat(_FINER, 0).repeat(_FINER, 1)
    inside = cv2.distanceTransform(fine, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    ridge = np.sort(inside[(inside > 0) & (inside >= cv2.dilate(inside, np.ones((3, 3))))])
    weight = np.cumsum(ridge**2)  # so that specks do not count
    middle = ridge[np.searchsorted(weight, weight[-1] / 2)]
    return (2 * float(middle) - 1) / _FINER


def is_directed(samples: Sequence[Sample]) -> bool:
    """Whether the surface has a direction: gradients point one way, by their structure tensor."""
    tensors = []
    for sample in samples[:_LOOKED_AT]:
        levels = cv2.GaussianBlur(grey(sample.image), (0, 0), 1.0)
        dy, dx = np.gradient(levels)
        clear = ~cv2.dilate(sample.mask.astype(np.uint8), np.ones((9, 9), np.uint8)).astype(bool)
        steep = np.hypot(dy, dx)
        clear &= steep < np.percentile(steep, 99)  # edges of the workpiece are no texture
        tensor = np.array(
            [(dx * dx)[clear].mean(), (dy * dy)[clear].mean(), (dx * dy)[clear].mean()]
        )
        tensors.append(tensor / max(1e-12, tensor[0] + tensor[1]))
    xx, yy, xy = np.mean(tensors, axis=0)
    return float(np.hypot(xx - yy, 2 * xy)) > _DIRECTED
