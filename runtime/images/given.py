"""Images as a program gives them: arrays, paths of files, pictures of Pillow's."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image

from ..errors import InputError
from .reading import read_image, read_picture
from .types import MAX_PIXELS, Bits

__all__ = ["Picture", "in_channels", "read_given"]

#: An image: an array, a file's path, or a picture of Pillow's.
Picture: TypeAlias = Bits | str | PathLike[str] | Image.Image


def read_given(image: Picture, what: str) -> Bits:
    """[H,W] or [H,W,C] of an image, uint8 or uint16: an array as it is, all else grey as [H,W].

    Raises `InputError` for anything else, which is called ``what``, and for files that cannot be
    read.
    """
    bits = _bits(image)
    if not isinstance(bits, np.ndarray) or bits.dtype not in (np.uint8, np.uint16):
        found = getattr(bits, "dtype", type(bits).__name__)
        raise InputError(f"{what}: an image is an array of uint8 or uint16, not {found}")
    full = in_channels(bits)
    if full.ndim != 3 or full.shape[2] not in (1, 2, 3, 4) or not full.size:
        raise InputError(
            f"{what}: an image is [H,W] or [H,W,C] with 1 to 4 channels, not {list(bits.shape)}"
        )
    if full.shape[0] * full.shape[1] > MAX_PIXELS:
        raise InputError(f"{what}: more than {MAX_PIXELS // 1_000_000} megapixels")
    return bits


def in_channels(image: Bits) -> Bits:
    """[H,W,C] of [H,W] too."""
    return image[..., None] if image.ndim == 2 else image


def _bits(image: Picture) -> Bits:
    if isinstance(image, str | PathLike):
        bits = read_image(Path(image))
    elif isinstance(image, Image.Image):
        bits = read_picture(image)
    else:
        return image
    return bits[..., 0] if bits.shape[2] == 1 else bits
