"""Regions: where in an image a defect may be."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..files import sha256_of
from ..images.types import Bits, Mask, has_alpha, without_alpha
from .folder import MaskFolder
from .reading import read_region

__all__ = [
    "Everywhere",
    "Foreground",
    "Region",
    "RegionFile",
    "RegionFolder",
    "RegionSource",
    "Segmentation",
    "foreground",
    "shrunk",
]

Field = NDArray[np.float32]

#: The longest side, in px, of the copy on which parts are told from their surroundings.
_SIDE = 384
#: Contrast of the part, in units of the background's own unrest, below which nothing is said.
_CONTRAST = 3.0
#: Share by which the part's area may change when the threshold moves by half.
_UNSTABLE = 0.2
#: Pixels of the copy by which the part is taken smaller: the edge is blurred by about as much.
_SAFE = 3


@dataclass(frozen=True)
class Region:
    """Where a defect may be, [H,W], and how that came about, for the manifest."""

    mask: Mask
    record: dict[str, Any]


class RegionSource(Protocol):
    """Says where in an image a defect may be: a pure function of its settings and the image."""

    def __call__(self, source: str, image: Bits) -> Region:
        """The region of one image; ``source`` is its path under its folder, posix.

        Raises `InputError`, with the reason, if it cannot be told; then nothing is guessed.
        """

    def record(self) -> dict[str, Any]:
        """What decides the regions, as plain JSON, for the job's record."""


class Everywhere:
    """The whole image."""

    def __call__(self, source: str, image: Bits) -> Region:
        """All of it."""
        return Region(np.ones(image.shape[:2], bool), {})

    def record(self) -> dict[str, Any]:
        """Nothing decides it."""
        return {}


class RegionFolder:
    """A folder of region masks, named like masks: 7_mask.png or 7.png for 7.jpg; not 0 is legal."""

    def __init__(self, folder: Path) -> None:
        """List the folder. Raises `InputError` if there is none."""
        self._folder = MaskFolder(folder)

    def __call__(self, source: str, image: Bits) -> Region:
        """The region of the same name."""
        return _read_region(self._folder.mask_of(PurePath(source)), self._folder.folder, image)

    def record(self) -> dict[str, Any]:
        """The names of all; what is in them is recorded with every sample."""
        return {"from": "regions", "files": self._folder.record()["files"]}


class RegionFile:
    """One region mask for all images, which are then of its size: for a camera that stands."""

    def __init__(self, path: Path) -> None:
        """Raises `InputError` if there is no such file."""
        if not path.is_file():
            raise InputError(f"{path}: no such region; give a folder, an image, or 'foreground'")
        self._path = path

    def __call__(self, source: str, image: Bits) -> Region:
        """The region."""
        return _read_region(self._path, self._path.parent, image)

    def record(self) -> dict[str, Any]:
        """The file's hash."""
        return {"from": "region", "sha256": sha256_of(self._path)}


class Foreground:
    """The part, told from the background that surrounds it (see `foreground`)."""

    def __call__(self, source: str, image: Bits) -> Region:
        """The part. Raises `InputError` if it cannot be told."""
        try:
            part = foreground(image)
        except InputError as fault:
            raise InputError(
                f"{source}: cannot tell the part from its surroundings: {fault}; "
                "give regions (--within DIR) or a golden image (--golden)"
            ) from None
        record = {"from": "foreground", "contrast": part.contrast, "share": part.share}
        return Region(part.mask, record)

    def record(self) -> dict[str, Any]:
        """It has no settings."""
        return {"from": "foreground"}


class Segmentation(NamedTuple):
    """A part that was told from its surroundings.

    mask      [H,W]; a little smaller rather than larger than the part
    contrast  the part's difference to the background, in units of the background's own unrest
    share     of the image that is part
    """

    mask: Mask
    contrast: float
    share: float


def foreground(image: Bits) -> Segmentation:
    """The part in an image [H,W,C] of a part before a background.

    Transparency decides where there is any. Otherwise the background is what most of the
    image's border shows: a surface of second order in each colour, fitted to the half of the
    border's pixels that agree best, so that uneven light does not matter, nor a part that is cut
    off by the border. What differs from it by more than the middle between the background's
    unrest and the part's contrast is part; small holes are filled, specks and what shows the
    background through a hole are not part.

    Raises `InputError` if there is no such background, no contrast, no part, or if the part's
    size depends on the threshold. A surface that fills the image has no background: that is
    said, not guessed.
    """
    if has_alpha(image) and image[..., -1].min() < np.iinfo(image.dtype).max // 2:
        opaque = image[..., -1] > np.iinfo(image.dtype).max // 2
        if not opaque.any():
            raise InputError("all of it is transparent")
        return Segmentation(opaque, float("inf"), round(float(opaque.mean()), 4))
    small = _reduced(image)
    distance, unrest = _distance_to_background(small)
    part = distance[distance > _otsu(distance)]
    contrast = float(np.median(part)) / unrest if len(part) else 0.0
    if contrast < _CONTRAST:
        raise InputError(f"contrast {contrast:.1f}, at least {_CONTRAST:g} is needed")
    threshold = unrest * contrast**0.5
    areas = [_clean(distance > factor * threshold).mean() for factor in (1 / 1.5, 1, 1.5)]
    share = float(areas[1])
    if not 0.005 < share < 0.98:
        raise InputError(f"{share:.1%} of the image would be part")
    if areas[0] - areas[2] > _UNSTABLE * share:
        raise InputError(f"its edge is vague: {areas[2]:.0%} to {areas[0]:.0%} could be part")
    mask = shrunk(_clean(distance > threshold), _SAFE)
    size = image.shape[1], image.shape[0]
    full = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    return Segmentation(full.astype(bool), round(contrast, 2), round(share, 4))


def shrunk(mask: Mask, margin: int) -> Mask:
    """A mask without all pixels within ``margin`` px, rows or columns, of one that is not in it.

    The image's border takes nothing away.
    """
    kernel = np.ones((2 * margin + 1, 2 * margin + 1), np.uint8)
    eroded = cv2.erode(mask.view(np.uint8), kernel, borderType=cv2.BORDER_CONSTANT, borderValue=1)
    return np.asarray(eroded, bool)


def _read_region(path: Path, folder: Path, image: Bits) -> Region:
    mask = read_region(path, (image.shape[0], image.shape[1]))
    file = path.relative_to(folder).as_posix()
    return Region(mask, {"from": "regions", "file": file, "sha256": sha256_of(path)})


def _reduced(image: Bits) -> Field:
    """[H,W,C] -> [h,w,C] float32 in [0,1], at most `_SIDE` px long, alpha left out, smoothed."""
    scale = min(1.0, _SIDE / max(image.shape[:2]))
    size = tuple(max(1, round(scale * side)) for side in image.shape[1::-1])
    small = cv2.resize(without_alpha(image), size, interpolation=cv2.INTER_AREA)
    colours = small.reshape(*size[::-1], -1)
    values = colours.astype(np.float32) / np.float32(np.iinfo(image.dtype).max)
    return np.asarray(cv2.GaussianBlur(values, (0, 0), 1.0), np.float32).reshape(values.shape)


def _distance_to_background(small: Field) -> tuple[Field, float]:
    """How far every pixel is from the background's colour there, and how far the background is.

    Raises `InputError` if less than half of the border is one background.
    """
    height, width = small.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].reshape(2, -1)
    terms = np.stack([np.ones_like(y), y, x, y * y, y * x, x * x], axis=1)
    colours = small.reshape(height * width, -1)
    edge = max(2, round(0.02 * min(height, width)))
    ring = np.ones((height, width), bool)
    ring[edge:-edge, edge:-edge] = False
    ring_terms, ring_colours = terms[ring.ravel()], colours[ring.ravel()]
    fitted = np.broadcast_to(np.median(ring_colours, axis=0), ring_colours.shape)
    for _ in range(8):
        error = np.linalg.norm(ring_colours - fitted, axis=1)
        good = error <= np.quantile(error, 0.6)
        surface = np.linalg.lstsq(ring_terms[good], ring_colours[good], rcond=None)[0]
        fitted = ring_terms @ surface
    error = np.linalg.norm(ring_colours - fitted, axis=1)
    unrest = max(3 * float(np.quantile(error, 0.5)), 1 / 255)
    if (error < 2 * unrest).mean() < 0.5:
        raise InputError("its border does not show one background")
    distance = np.linalg.norm(colours - terms @ surface, axis=1)
    return distance.reshape(height, width).astype(np.float32), unrest


def _otsu(values: Field) -> float:
    """The threshold that parts values into the two most distinct groups."""
    top = float(np.quantile(values, 0.995)) or 1.0
    levels = np.clip(values / top * 255, 0, 255).astype(np.uint8)
    return float(top * cv2.threshold(levels, 0, 255, cv2.THRESH_OTSU)[0] / 255)


def _clean(part: Mask) -> Mask:
    """Without specks, small holes, and pieces much smaller than the largest."""
    square = np.ones((3, 3), np.uint8)
    opened = np.asarray(cv2.morphologyEx(part.view(np.uint8), cv2.MORPH_OPEN, square), np.uint8)
    filled = np.uint8(1) - _without_small(np.uint8(1) - opened, 0.001 * max(1, int(opened.sum())))
    largest = cv2.connectedComponentsWithStats(filled)[2][1:, cv2.CC_STAT_AREA].max(initial=0)
    return _without_small(filled, 0.05 * largest).astype(bool)


def _without_small(mask: NDArray[np.uint8], area: float) -> NDArray[np.uint8]:
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
    keep = stats[:, cv2.CC_STAT_AREA] >= area
    keep[0] = False
    return np.asarray(keep[labels], np.uint8)
