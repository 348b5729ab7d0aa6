"""What an image and a mask are here: arrays, their types and their largest size."""

from __future__ import annotations

from functools import reduce
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "DARK_BITS",
    "MAX_BYTES",
    "MAX_PIXELS",
    "Bits",
    "Mask",
    "Pixels",
    "brightness",
    "channel_max",
    "differs",
    "has_alpha",
    "unused_bits",
    "without_alpha",
]

#: [H,W], True is defect.
Mask = NDArray[np.bool_]
#: [H,W,C] uint8 or uint16; C is 1 grey, 2 grey + alpha, 3 RGB, 4 RGB + alpha.
Bits = NDArray[np.uint8] | NDArray[np.uint16]
#: [H,W,3] or [H,W] float32, in units of the full range.
Pixels = NDArray[np.float32]

Numbers = TypeVar("Numbers", bound=NDArray[Any])

#: Larger images are refused before they are decoded.
MAX_PIXELS = 100_000_000
#: More than these take with four 16-bit channels; larger files are not read at all.
MAX_BYTES = 1 << 30

#: Highest bits that no px of an image uses, from which on it is black to the model.
DARK_BITS = 3


def has_alpha(image: Bits) -> bool:
    """Whether the last channel of [H,W,C] is transparency."""
    return image.shape[2] in (2, 4)


def without_alpha(image: Bits) -> Bits:
    """[H,W,C] -> [H,W,1] or [H,W,3], a view."""
    return image[..., :-1] if has_alpha(image) else image


def brightness(image: Bits) -> Pixels:
    """[H,W,C] -> [H,W] float32: the mean of the colours, in the image's own units."""
    return np.asarray(without_alpha(image).astype(np.float32).mean(axis=2), np.float32)


def channel_max(image: Numbers) -> Numbers:
    """[H,W,C] -> [H,W]: the largest of the channels, 20 times as fast as NumPy's over an axis."""
    return cast(Numbers, reduce(np.maximum, np.moveaxis(image, 2, 0)))


def differs(one: Bits | Pixels, two: Bits | Pixels) -> Mask:
    """Where two images [H,W,C] differ in any channel, [H,W]."""
    pairs = zip(np.moveaxis(one, 2, 0), np.moveaxis(two, 2, 0), strict=True)
    return reduce(np.logical_or, (a != b for a, b in pairs))


def unused_bits(image: Bits) -> int:
    """Highest bits of [H,W,C] uint16 that no px uses; 0 for uint8, whose bits cameras fill."""
    if image.dtype != np.uint16:
        return 0
    return 16 - int(without_alpha(image).max()).bit_length()
