"""The window that the model sees of an image, and its pixels to and from the model's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..diffusion.rows import Floats
from .types import Bits, Mask, Pixels, without_alpha

__all__ = ["Window", "bounds", "from_model", "place_window", "to_model"]


@dataclass(frozen=True)
class Window:
    """A square of the image that the model sees: corner (y, x) and side, in image pixels.

    It may reach over the border of an image that is smaller; what lies outside is mirrored.
    """

    y: int
    x: int
    side: int

    def crop(self, array: NDArray[Any]) -> NDArray[Any]:
        """[H,W,…] -> [side,side,…], mirrored beyond the border."""
        (top, inside_y, bottom), (left, inside_x, right) = (
            self._span(start, size)
            for start, size in zip((self.y, self.x), array.shape[:2], strict=True)
        )
        view = array[inside_y, inside_x]
        pad = [(top, bottom), (left, right), *[(0, 0)] * (array.ndim - 2)]
        return np.pad(view, pad, mode="symmetric") if any(map(any, pad)) else view

    def paste(self, array: NDArray[Any], window: NDArray[Any]) -> None:
        """Write [side,side,…] back into [H,W,…]; what lies beyond the border is dropped."""
        (top, inside_y, _), (left, inside_x, _) = (
            self._span(start, size)
            for start, size in zip((self.y, self.x), array.shape[:2], strict=True)
        )
        height, width = array[inside_y, inside_x].shape[:2]
        array[inside_y, inside_x] = window[top : top + height, left : left + width]

    def _span(self, start: int, size: int) -> tuple[int, slice, int]:
        """Mirrored pixels before, the part inside the image, mirrored pixels after."""
        end = start + self.side
        return max(0, -start), slice(max(0, start), min(size, end)), max(0, end - size)


def bounds(mask: Mask) -> tuple[slice, slice]:
    """The smallest box, rows and columns, around what is set in a mask [H,W] that is not empty."""
    ys, xs = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return slice(int(ys[0]), int(ys[-1]) + 1), slice(int(xs[0]), int(xs[-1]) + 1)


def place_window(mask: Mask, side: int, context: int) -> Window:
    """The window for a mask: the model's own size at the image's resolution if it fits.

    mask [H,W] with at least one pixel; ``side`` is the model's window and ``context`` the
    pixels wanted around the mask. A larger mask gets a larger window, which is then scaled.
    """
    y, x = bounds(mask)
    low, high = np.array([y.start, x.start]), np.array([y.stop, x.stop])
    side = max(side, int((high - low).max()) + 2 * context)
    corner = (low + high - side) // 2
    room = np.array(mask.shape) - side
    corner = np.where(room >= 0, np.clip(corner, 0, np.maximum(room, 0)), room // 2)
    return Window(int(corner[0]), int(corner[1]), side)


def to_model(image: Bits, size: int) -> Floats:
    """[S,S,C] uint8 or uint16 -> [3,size,size] float32 in [-1,1]; alpha is left out."""
    top = np.iinfo(image.dtype).max
    colour = without_alpha(image)
    values = colour.astype(np.float32) / np.float32(top / 2) - 1
    if values.shape[2] == 1:
        values = np.repeat(values, 3, axis=2)
    return np.ascontiguousarray(_resize(values, size).transpose(2, 0, 1))


def from_model(pixels: Floats, size: int) -> Pixels:
    """[3,h,w] float32 in about [-1,1] -> [size,size,3] float32, 0 black and 1 white."""
    values = _resize(np.ascontiguousarray(pixels.transpose(1, 2, 0)), size)
    return np.asarray(values / 2 + 0.5, np.float32)


def _resize(values: Pixels, size: int) -> Pixels:
    if values.shape[0] == size:
        return values
    method = cv2.INTER_AREA if size < values.shape[0] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(values, (size, size), interpolation=method), np.float32)
