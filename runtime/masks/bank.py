"""A bank of real defects' masks, to be transplanted: turned, scaled, mirrored."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..files import sha256_of
from ..images.folder import find_images
from ..images.types import Mask
from .pairing import Names
from .pieces import largest, pieces, tight
from .reading import read_any_mask

__all__ = ["BankEntry", "read_bank", "transplant"]

#: Samples a px, each way, that say how much of it the turned shape covers.
_FINE = 4
#: The longest side of what can be turned, in px.
_LARGEST = 7000
#: Coverage from which a px belongs to the shape; the lower ones count where it would fall apart.
_COVERAGE = (0.5, 0.375, 0.25, 0.125, 0.0)


@dataclass(frozen=True)
class BankEntry:
    """One defect of a bank: its mask, tight [h,w], and where it is from.

    A mask whose pieces lie far apart is several defects; ``piece`` counts them.
    """

    shape: Mask
    file: str
    sha256: str
    piece: int


def read_bank(folder: Path, gap: int | None) -> list[BankEntry]:
    """All defects in a folder of masks, by name; images that have a mask there do not count.

    Which file is the mask, `defectrt.masks.pairing` says. ``gap`` px and more part one mask into
    several defects, see `defectrt.masks.pieces.pieces`; None keeps masks whole. Empty ones are left
    out. Raises `InputError` if nothing is left, or for a file that is no mask since it has no
    background.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of masks")
    entries = [entry for path in _masks(folder) for entry in _read(path, folder, gap)]
    if not entries:
        raise InputError(f"{folder}: holds no masks that are not empty")
    return entries


def transplant(
    shape: Mask, angle: float = 0.0, scale: float = 1.0, *, mirror: bool = False, min_area: int = 1
) -> Mask:
    """A mask [h,w], mirrored, then turned by ``angle`` degrees and scaled: tight [h',w'].

    Quarter turns at scale 1 move pixels and change nothing. Otherwise a px belongs to the result
    if at least half of it is covered, or less where the shape would come apart: the result has
    no more pieces than the shape. A scale that would leave fewer than ``min_area`` px is raised
    until it does not.
    """
    if mirror:
        shape = shape[:, ::-1]
    quarters, rest = divmod(angle % 360, 90)
    scale = max(scale, (min_area / int(shape.sum())) ** 0.5)
    scale = min(scale, _LARGEST / max(shape.shape))
    while True:
        turned = shape if rest == 0 and scale == 1 else _resample(shape, rest, scale)
        if turned.sum() >= min_area:
            return tight(np.rot90(turned, int(quarters)))
        scale *= 1.05


def _masks(folder: Path) -> list[Path]:
    """All files but images: those with a mask, and those in a folder beside one of masks."""
    listed = [PurePosixPath(path.relative_to(folder).as_posix()) for path in find_images(folder)]
    names, images, faults = Names(listed), set(), []
    for below in names.folders:
        parallel = names.parallel(below)
        pairs = names.beside(below) if parallel is None else parallel
        images |= {pair.image for pair in pairs if pair.mask or parallel}
        faults += [f"{folder / pair.image}: {pair.fault}" for pair in pairs if pair.fault]
    if faults:
        raise InputError("\n".join(faults))
    return [folder / name for name in listed if name not in images]


def _read(path: Path, folder: Path, gap: int | None) -> list[BankEntry]:
    mask = read_any_mask(path)
    name, sha256 = path.relative_to(folder).as_posix(), sha256_of(path)
    shapes = [piece.shape for piece in pieces(mask, gap or max(mask.shape))] if mask.any() else []
    return [BankEntry(shape, name, sha256, i) for i, shape in enumerate(shapes)]


def _resample(shape: Mask, angle: float, scale: float) -> Mask:
    """Turned by 0 to 90 degrees, counter-clockwise, and scaled; not tight.

    A shape that is so much smaller that it comes apart whatever counts as covered loses its
    smallest pieces.
    """
    coverage = _coverage(shape, angle, scale)
    most = _count(shape)
    for level in _COVERAGE:
        turned = coverage >= level if level else coverage > 0
        if turned.any() and _count(turned) <= most:
            return np.asarray(turned)
    return largest(turned, most)


def _coverage(shape: Mask, angle: float, scale: float) -> NDArray[np.float32]:
    """Share of every px that the turned shape covers, by ``_FINE`` x ``_FINE`` samples."""
    h, w = shape.shape
    matrix = cv2.getRotationMatrix2D((0.0, 0.0), angle, scale * _FINE)
    corners = np.array([[x, y] for y in (0, h) for x in (0, w)]) @ matrix[:, :2].T
    low = corners.min(axis=0)
    width, height = (int(n) for n in np.ceil((corners.max(axis=0) - low) / _FINE) + 2)
    # from the middles of pixels to the middles of samples, a px of room on each side
    matrix[:, 2] = matrix[:, :2] @ [0.5, 0.5] - low + _FINE - 0.5
    fine = cv2.warpAffine(
        shape.astype(np.uint8),
        matrix,
        (width * _FINE, height * _FINE),
        flags=cv2.INTER_NEAREST,
    )
    cells = fine.reshape(height, _FINE, width, _FINE)
    return np.asarray(cells.mean(axis=(1, 3), dtype=np.float32))


def _count(mask: Mask) -> int:
    """Pieces of a mask; px that touch at a corner hang together."""
    return int(cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[0]) - 1
