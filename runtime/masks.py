"""Masks: where a defect may be."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .errors import InputError
from .images import Mask, is_picture, read_picture
from .rows import Floats

__all__ = ["find_mask", "latent_mask", "read_mask", "reduce_mask"]


def find_mask(picture: Path, images: Path, masks: Path) -> Path:
    """The mask of a picture: the same path under ``masks``, as ``name.*`` or ``name_mask.*``."""
    relative = picture.relative_to(images)
    folder = masks / relative.parent
    for stem in (f"{picture.stem}_mask", picture.stem):
        found = sorted(p for p in folder.glob(f"{_literal(stem)}.*") if is_picture(p))
        if len(found) > 1:
            raise InputError(
                f"{picture}: more than one mask: {', '.join(p.name for p in found)}; keep one"
            )
        if found:
            return found[0]
    raise InputError(f"{picture}: no mask; expected {folder / picture.stem}_mask.png")


def _literal(stem: str) -> str:
    """A file name as a glob pattern that matches only itself."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in stem)


def read_mask(path: Path, size: tuple[int, int]) -> Mask:
    """Read a mask for a picture of ``size`` (H, W); any value but 0 is defect.

    Values are not thresholded in the middle: several datasets encode classes in small numbers.
    Raises `InputError` for another size or an empty mask.
    """
    picture = read_picture(path)
    if picture.shape[:2] != size:
        raise InputError(
            f"{path}: the mask is {picture.shape[1]}x{picture.shape[0]}, "
            f"its picture {size[1]}x{size[0]}"
        )
    colours = picture[..., :-1] if picture.shape[2] in (2, 4) else picture
    mask: Mask = colours.any(axis=2)
    if not mask.any():
        raise InputError(f"{path}: the mask is empty")
    return mask


def reduce_mask(mask: Mask, height: int, width: int) -> Mask:
    """[H,W] -> [height,width]: a cell is set if any pixel that it touches is.

    The cells need not divide the picture evenly; nothing that is set gets lost.
    """
    ys, xs = np.nonzero(mask)
    out = np.zeros((height, width), bool)
    out[ys * height // mask.shape[0], xs * width // mask.shape[1]] = True
    return out


def latent_mask(mask: Mask, height: int, width: int) -> Floats:
    """A window's mask at latent resolution: [S,S] bool -> [1,height,width] float32 in {0,1}."""
    return reduce_mask(mask, height, width).astype(np.float32)[None]
