"""What a handful of defects looks like: sizes, widths, direction; and what will not work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from defectrt.config.engine import Magnify
from defectrt.files import first_of
from defectrt.images.contrast import grey, strength_in, surroundings
from defectrt.images.types import DARK_BITS, Mask, unused_bits
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
#: Windows that a defect may take; it is painted scaled, unless images are enlarged.
_SCALED = 2

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

    magnify   how many times the images should be enlarged for the finest type, 1, 2 or 4; or that
              they should be seen whole, and ``why``
    seen      side in px of what is seen of them at once
    """

    defect_types: dict[str, TypeSurvey]
    good: int
    directed: bool
    magnify: Magnify
    why: str
    seen: int
    warnings: tuple[str, ...]


def survey(samples: Sequence[Sample], window: int, cell: int, *, logical: bool = False) -> Survey:
    """Look at samples that a model is to learn from.

    ``window`` is the side that it sees, ``cell`` that of a cell of its latents, in px. Anomalies
    that are ``logical``, as parts in the wrong place are, show in whole images alone.
    """
    names = sorted({s.defect_type for s in samples} - {GOOD})
    by_name = {name: [s for s in samples if s.defect_type == name] for name in names}
    found = {name: _look(own, window) for name, own in by_name.items()}
    sides = [max(s.mask.shape) for own in by_name.values() for s in own]
    side = int(np.median(sides or [window]))
    magnify, why = _magnify(found, window, cell, side, logical=logical)
    seen = side if magnify == "fit" else window // magnify
    warnings = [
        fault
        for name, own in by_name.items()
        for fault in _faults(name, own, found[name], seen, window / seen)
    ]
    if magnify != "fit":  # masks are regions there, all alike
        warnings += _alike(found)
    good = [s for s in samples if s.defect_type == GOOD]
    looked_at = [s for own in by_name.values() for s in own] + good[:_LOOKED_AT]
    if dark := [s.path.name for s in looked_at if unused_bits(s.image) >= DARK_BITS]:
        warnings.append(
            f"{len(dark)} images have 16 bits and hardly use them, so they are black to the model "
            f"({first_of(dark)}); scale them to the full range"
        )
    directed = is_directed(good or samples)
    return Survey(found, len(good), directed, magnify, why, seen, tuple(warnings))


def _magnify(
    found: Mapping[str, TypeSurvey], window: int, cell: int, side: int, *, logical: bool
) -> tuple[Magnify, str]:
    """Images of ``side`` px whole, or else the least at which the finest type is painted well."""
    if logical:
        return "fit", "what is missing or in the wrong place shows in no part of them"
    finest = min((one.thickness for one in found.values()), default=_FINE)
    large = [name for name, one in found.items() if one.longest > _SCALED * window]
    if large and finest * window / side >= _FINE:
        return "fit", f"{', '.join(large)}: too large for any part that is seen at once"
    possible: tuple[Literal[1, 2, 4], ...] = (1, 2, 4)
    possible = tuple(times for times in possible if times <= cell)
    least = next((times for times in possible if times * finest >= _FINE), possible[-1])
    return least, "the defects are fine" if least > 1 else ""


def examples_of(samples: Sequence[Sample], found: Survey) -> Examples:
    """What the samples of one type say of the masks that are to be drawn for it.

    They are not turned if the surface has a direction, nor if they themselves run one way. Where
    images are seen whole they stay in their places, and say of no strength: half a missing part is
    none.
    """
    whole = found.magnify == "fit"
    found_in = [[Piece(s.mask, (0, 0))] if whole else _instances(s, found.seen) for s in samples]
    masks = [piece.shape for own in found_in for piece in own]
    strengths = [
        strength_in(sample.image, paste(piece.shape, piece.corner, sample.mask.shape))
        for sample, own in zip(samples, found_in, strict=True)
        for piece in own
    ]
    return Examples.of(
        masks,
        [one for one in strengths if one is not None and not whole],
        directed=found.directed or runs_one_way(masks),
        places=look((sample.image, sample.mask) for sample in samples),
        instances=[len(own) for own in found_in],
        whole=whole,
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
    defect_type: str, samples: Sequence[Sample], found: TypeSurvey, seen: int, scale: float
) -> Iterator[str]:
    """What a quality engineer should know before time is spent.

    The model sees ``seen`` px at once, ``scale`` px of its window to one of them.
    """
    wide = [s.path.name for s in samples if s.mask.mean() > 0.5]
    if wide:
        yield (
            f"{defect_type}: the mask of {wide[0]} covers more than half of the picture; a mask "
            "marks the defect alone"
        )
    if scale * found.thickness < _FINE:
        yield (
            f"{defect_type}: the defects are {found.thickness:.1f} px thin and will come out "
            "softer than they are; "
            + ("pictures at a higher resolution help" if scale >= 1 else "they are seen smaller")
        )
    if found.longest > (_SCALED if scale == 1 else 1) * seen:
        yield (
            f"{defect_type}: the defects are {found.longest:.0f} px long, and the model sees "
            f"{seen} px at once; they are painted in tiles, and large forms are not "
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
