"""Images as people look at them: small, of 8 bits, a label outlined; for reports and notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from .png import encode_png
from .types import Bits, Mask, channel_max, without_alpha
from .window import Window, bounds

__all__ = [
    "Shown",
    "around",
    "difference",
    "enlarged",
    "evenly",
    "outlined",
    "resized",
    "shown",
]

T = TypeVar("T")
#: [H,W] grey or [H,W,C].
Shown = NDArray[np.uint8]

#: px a side of each half of a preview.
_SIDE = 480
_OUTLINE = (255, 64, 0)


def evenly(items: Sequence[T], most: int) -> list[T]:
    """At most so many of the items, evenly spread."""
    if len(items) <= most:
        return list(items)
    return [items[i * len(items) // most] for i in range(most)]


def shown(image: Bits, good: Bits) -> Shown:
    """8 bits without alpha; 16 bits are stretched to what the good image uses of them."""
    colour = without_alpha(image)
    if image.dtype == np.uint8:
        return np.asarray(colour, np.uint8)
    low, high = np.percentile(without_alpha(good), (0.1, 99.9))
    return np.asarray(np.clip((colour - low) * (255 / max(1, high - low)), 0, 255), np.uint8)


def resized(image: Shown, side: int) -> Shown:
    """At most ``side`` px a side."""
    scale = side / max(image.shape[:2])
    if scale >= 1:
        return image
    size = [max(1, round(scale * n)) for n in image.shape[1::-1]]
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def enlarged(image: Bits, good: Bits, window: Window, side: int) -> Shown:
    """[side,side,3]: what a window shows of an image, as `shown` beside its good one."""
    seen = shown(window.crop(image), good)
    levels = cv2.resize(seen, (side, side), interpolation=cv2.INTER_CUBIC)
    return np.asarray(np.broadcast_to(levels.reshape(side, side, -1), (side, side, 3)), np.uint8)


def around(mask: Mask, least: int, context: int) -> tuple[slice, slice]:
    """A square around what is set, or as near to one as the image allows.

    At least ``least`` px a side, and ``context`` px beyond what is set on each side; all of the
    image where nothing is set.
    """
    if not mask.any():
        return slice(0, mask.shape[0]), slice(0, mask.shape[1])
    spans = [(box.start, box.stop) for box in bounds(mask)]
    side = max(least, max(high - low for low, high in spans) + 2 * context)
    y, x = (_span(*span, side, size) for span, size in zip(spans, mask.shape, strict=True))
    return y, x


def _span(low: int, high: int, side: int, size: int) -> slice:
    start = max(0, min((low + high - side) // 2, size - side))
    return slice(start, min(size, start + side))


def difference(good: Bits, image: Bits, gain: float) -> Shown:
    """[H,W,3]: largest difference of the channels, ``gain`` times, black over red to yellow."""
    top = np.iinfo(good.dtype).max
    amount = (
        channel_max(np.abs(without_alpha(image).astype(np.float32) - without_alpha(good))) / top
    )
    grey = np.asarray(np.clip(amount * (255 * gain), 0, 255), np.uint8)
    return np.asarray(cv2.applyColorMap(grey, cv2.COLORMAP_INFERNO)[..., ::-1], np.uint8)


def outlined(image: Bits, label: Mask) -> bytes:
    """A small PNG: the image [H,W,C], and beside it the same with its label [H,W] outlined."""
    plain = resized(shown(image, image), _SIDE)
    plain = np.broadcast_to(plain.reshape(*plain.shape[:2], -1), (*plain.shape[:2], 3))
    small = (resized(label.astype(np.uint8) * np.uint8(255), _SIDE) > 0).astype(np.uint8)
    around = cv2.dilate(small, np.ones((5, 5), np.uint8)) > cv2.dilate(
        small, np.ones((3, 3), np.uint8)
    )
    marked = np.where(around[..., None], np.array(_OUTLINE, np.uint8), plain)
    gap = np.full((len(plain), 4, 3), 255, np.uint8)
    return encode_png(np.concatenate([plain, gap, marked], axis=1))
