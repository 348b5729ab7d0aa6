"""Masks: where a defect may be."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path, PurePath

import numpy as np

from .errors import InputError
from .images import Mask, find_pictures, read_picture
from .rows import Floats

__all__ = ["MaskFolder", "latent_mask", "read_mask", "reduce_mask"]


class MaskFolder:
    """A folder of masks, listed once: the mask of a/7.jpg is a/7_mask.png or a/7.png.

    Any suffix of a picture will do. Where both names are there, 7_mask counts: the other may be
    the picture itself. Raises `InputError` if there is no such folder.
    """

    def __init__(self, folder: Path) -> None:
        """List the folder and everything below."""
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder of masks")
        self.folder = folder
        self._files: dict[PurePath, list[Path]] = defaultdict(list)
        for path in find_pictures(folder):
            self._files[path.relative_to(folder).with_suffix("")].append(path)

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
    """Read a mask for a picture of ``size`` (H, W); any value but 0 is defect.

    Values are not thresholded in the middle: several datasets encode classes in small numbers.
    A palette counts by its colours, and black is 0. Raises `InputError` for another size or an
    empty mask.
    """
    picture = read_picture(path)
    if picture.shape[:2] != size:
        raise InputError(
            f"{path}: the mask is {picture.shape[1]}x{picture.shape[0]}, "
            f"its picture {size[1]}x{size[0]}"
        )
    colours = picture[..., :-1] if picture.shape[2] in (2, 4) else picture
    mask = np.asarray(colours.any(axis=2))
    if not mask.any():
        raise InputError(f"{path}: the mask is empty")
    return mask


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
