"""Masks from files: the one place that says which pixels of a mask are defect."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import InputError
from ..images.reading import read_image
from ..images.types import Mask, without_alpha

__all__ = ["read_any_mask", "read_mask"]


def read_mask(path: Path, size: tuple[int, int]) -> Mask:
    """Read a mask for an image of ``size`` (H, W); see `read_any_mask` for what counts.

    Raises `InputError` for another size or an empty mask.
    """
    mask = read_any_mask(path)
    if mask.shape != size:
        raise InputError(
            f"{path}: the mask is {mask.shape[1]}x{mask.shape[0]}, its image {size[1]}x{size[0]}"
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
    image = read_image(path)
    colours = without_alpha(image)
    lowest = 128 if path.suffix.lower() in (".jpg", ".jpeg") else 1
    return np.asarray((colours >= lowest).any(axis=2))
