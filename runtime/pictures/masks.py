"""Masks: where a defect may be, and where they come from."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np

from ..diffusion.rows import Floats
from ..errors import InputError
from ..files import sha256_of
from .images import Bits, Mask, find_pictures, read_picture
from .placement import paste
from .shapes import tight

__all__ = [
    "MaskFolder",
    "MaskSource",
    "Piece",
    "Placed",
    "digest",
    "latent_mask",
    "pieces",
    "read_any_mask",
    "read_mask",
    "reduce_mask",
]


@dataclass(frozen=True)
class Placed:
    """One spot of a sample: its mask [H,W], not empty, and how it came about.

    The record goes into the sample's line of the manifest and is enough to make the mask again:
    ``from`` names the kind of source, the rest depends on it (file and hash, or seed, …).
    """

    mask: Mask
    record: dict[str, Any]


class MaskSource(Protocol):
    """Where masks come from: a pure function of its settings, a picture and a sample's number."""

    def __call__(self, source: str, picture: Bits, sample: int) -> list[Placed]:
        """The spots of one sample, at least one; each is a defect of its own in the picture.

        ``source`` is the picture's path under its folder, posix; ``picture`` is [H,W,C]. Raises
        `InputError`, with the reason, if this picture cannot have a mask and is to be skipped.
        """

    def record(self) -> dict[str, Any]:
        """What decides the masks, as plain JSON, for the job's record."""


def digest(names: Iterable[str]) -> str:
    """Changes with any of the names or their order."""
    names = list(names)
    data = "\n".join(names).encode(errors="surrogateescape")
    return f"{len(names)}, sha256 {hashlib.sha256(data).hexdigest()[:16]}"


class MaskFolder:
    """A folder of masks, listed once: the mask of a/7.jpg is a/7_mask.png or a/7.png.

    Any suffix of a picture will do. Where both names are there, 7_mask counts: the other may be
    the picture itself. Raises `InputError` if there is no such folder.
    """

    def __init__(self, folder: Path, gap: int | None = None) -> None:
        """List the folder and everything below; ``gap`` as in `pieces`, None keeps masks whole."""
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder of masks")
        self.folder, self._gap = folder, gap
        self._files: dict[PurePath, list[Path]] = defaultdict(list)
        for path in find_pictures(folder):
            self._files[path.relative_to(folder).with_suffix("")].append(path)

    def __call__(self, source: str, picture: Bits, sample: int) -> list[Placed]:
        """The picture's mask, the same for every sample; pieces far apart are several spots."""
        path = self.mask_of(PurePath(source))
        mask = read_mask(path, (picture.shape[0], picture.shape[1]))
        record = {
            "from": "folder",
            "file": path.relative_to(self.folder).as_posix(),
            "sha256": sha256_of(path),
        }
        parts = pieces(mask, self._gap) if self._gap else []
        if len(parts) < 2:
            return [Placed(mask, record)]
        return [
            Placed(paste(part.shape, part.corner, mask.shape), record | {"piece": i})
            for i, part in enumerate(parts)
        ]

    def record(self) -> dict[str, Any]:
        """The names of all masks; what is in them is recorded with every sample."""
        files = sorted(path for paths in self._files.values() for path in paths)
        names = digest(path.relative_to(self.folder).as_posix() for path in files)
        return {"from": "folder", "files": names}

    def mask_of(self, source: PurePath) -> Path:
        """The mask of a picture, ``source`` being its path under the folder of pictures.

        Raises `InputError` if there is none, or more than one of the same name.
        """
        for stem in (f"{source.stem}_mask", source.stem):
            found = self._files.get(source.with_name(stem), [])
            if len(found) > 1:
                names = ", ".join(path.name for path in found)
                raise InputError(f"{source}: more than one mask: {names}; keep one")
            if found:
                return found[0]
        expected = self.folder / source.parent / f"{source.stem}_mask.png"
        raise InputError(f"{source}: no mask; expected {expected}")


def read_mask(path: Path, size: tuple[int, int]) -> Mask:
    """Read a mask for a picture of ``size`` (H, W); see `read_any_mask` for what counts.

    Raises `InputError` for another size or an empty mask.
    """
    mask = read_any_mask(path)
    if mask.shape != size:
        raise InputError(
            f"{path}: the mask is {mask.shape[1]}x{mask.shape[0]}, its picture {size[1]}x{size[0]}"
        )
    if not mask.any():
        raise InputError(f"{path}: the mask is empty")
    return mask


def read_any_mask(path: Path) -> Mask:
    """Read a mask [H,W] of any size, maybe empty: any value but 0 is defect.

    Values are not thresholded in the middle: several datasets encode classes in small numbers.
    A palette counts by its colours, and black is 0; alpha does not count. JPEG is different: it
    blurs what it stores and cannot hold classes, so there the upper half is defect.
    """
    picture = read_picture(path)
    colours = picture[..., :-1] if picture.shape[2] in (2, 4) else picture
    lowest = 128 if path.suffix.lower() in (".jpg", ".jpeg") else 1
    return np.asarray((colours >= lowest).any(axis=2))


class Piece(NamedTuple):
    """A part of a mask: tight [h,w], and the corner (y, x) at which it lies."""

    shape: Mask
    corner: tuple[int, int]


def pieces(mask: Mask, gap: int) -> list[Piece]:
    """The parts of a mask [H,W] that lie far apart, from the top left on; none if it is empty.

    Two pieces are at least ``gap`` px apart in a row or a column; what is closer stays together,
    and so may what is up to twice as far. Cells of ``gap`` px are joined where they touch, so the
    work does not grow with the picture.
    """
    rows, columns = (-(-side // gap) for side in mask.shape)
    cells = np.zeros((rows * gap, columns * gap), bool)
    cells[: mask.shape[0], : mask.shape[1]] = mask
    joined = np.asarray(cells.reshape(rows, gap, columns, gap).any(axis=(1, 3)), np.uint8)
    count, labels = cv2.connectedComponents(joined, connectivity=8)
    return [_piece(mask, labels == label, gap) for label in range(1, count)]


def _piece(mask: Mask, cells: Mask, gap: int) -> Piece:
    ys, xs = cells.nonzero()
    top, left = int(ys.min()) * gap, int(xs.min()) * gap
    cells = tight(cells).repeat(gap, axis=0).repeat(gap, axis=1)
    view = mask[top : top + cells.shape[0], left : left + cells.shape[1]]
    part = view & cells[: view.shape[0], : view.shape[1]]
    y, x = int(part.any(axis=1).argmax()), int(part.any(axis=0).argmax())
    return Piece(tight(part), (top + y, left + x))


def reduce_mask(mask: Mask, height: int, width: int) -> Mask:
    """[H,W] -> [height,width]: a cell is set if any pixel in it is.

    The cells need not divide the picture evenly; nothing that is set gets lost.
    """
    ys, xs = np.nonzero(mask)
    out = np.zeros((height, width), bool)
    out[ys * height // mask.shape[0], xs * width // mask.shape[1]] = True
    return out


def latent_mask(mask: Mask, height: int, width: int) -> Floats:
    """A window's mask at latent resolution: [S,S] bool -> [1,height,width] float32 in {0,1}."""
    return reduce_mask(mask, height, width).astype(np.float32)[None]
