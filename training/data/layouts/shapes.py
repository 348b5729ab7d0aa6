"""What annotations draw, as masks of their image.

Coordinates are continuous, x to the right and y down: px i spans i to i + 1.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from defectrt.errors import InputError
from defectrt.images.types import Mask

__all__ = [
    "Box",
    "Outline",
    "Raster",
    "Shape",
    "Size",
    "around",
    "ellipse",
    "from_run_lengths",
    "picture_in",
    "placed",
    "run_lengths_of",
]

#: (H, W).
Size: TypeAlias = tuple[int, int]
#: Px of a mask that is a picture in a text.
_MOST = 1 << 28
#: Corners of the polygon that stands for an ellipse.
_CORNERS = 64


@dataclass(frozen=True, eq=False)
class Outline:
    """A closed polygon: what is inside by the rule of even and odd.

    points  [N,2] (x, y), in px or, if ``shares``, in shares of the image's width and height
    drawn   whether px count that the line itself touches, as where it is drawn on px; otherwise
            those whose middle is inside
    """

    points: NDArray[np.float64]
    shares: bool = False
    drawn: bool = False

    def paint(self, size: Size) -> Mask:
        """The mask [H,W]. Where no px's middle is inside, the line counts."""
        points = self.points * size[::-1] if self.shares else self.points
        points = points.clip(-size[1] - size[0], 2 * (size[1] + size[0]))
        mask = np.zeros(size, bool) if self.drawn else _inside(points, size)
        return mask if mask.any() else _drawn(points, size)


@dataclass(frozen=True)
class Box:
    """Somewhere in it is a defect; in px, or in shares of the image's width and height."""

    left: float
    top: float
    right: float
    bottom: float
    shares: bool = False

    def within(self, size: Size) -> tuple[int, int, int, int]:
        """The px that it touches: top, left, bottom, right. Raises `InputError` for none."""
        height, width = size
        x, y = (width, height) if self.shares else (1, 1)
        left, right = max(0, int(self.left * x)), min(width, int(np.ceil(self.right * x)))
        top, bottom = max(0, int(self.top * y)), min(height, int(np.ceil(self.bottom * y)))
        if left >= right or top >= bottom:
            raise InputError("a box lies outside its image, or has no area")
        return top, left, bottom, right


@dataclass(frozen=True, eq=False)
class Raster:
    """Px, decoded when they are needed: from the image's (H, W) to its mask [H,W]."""

    paint: Callable[[Size], Mask]


Shape: TypeAlias = Outline | Box | Raster


def ellipse(x: float, y: float, rx: float, ry: float, degrees: float = 0.0) -> NDArray[np.float64]:
    """The outline [N,2] of an ellipse around (x, y), turned clockwise."""
    at = np.linspace(0, 2 * np.pi, _CORNERS, endpoint=False)
    points = np.stack([rx * np.cos(at), ry * np.sin(at)], axis=1)
    sin, cos = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
    return np.asarray(points @ [[cos, sin], [-sin, cos]] + (x, y))


def around(
    left: float,
    top: float,
    right: float,
    bottom: float,
    centre: tuple[float, float],
    degrees: float,
) -> Box:
    """The upright box around a box that is turned clockwise about a point."""
    sin, cos = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
    corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]]) - centre
    turned = corners @ [[cos, sin], [-sin, cos]] + centre
    return Box(*turned.min(axis=0).tolist(), *turned.max(axis=0).tolist())


def picture_in(text: str) -> Mask:
    """A mask from a PNG in base64: all that is not black, nor transparent.

    Raises `InputError` for what is none.
    """
    try:
        with Image.open(BytesIO(base64.b64decode(text, validate=True)), formats=("PNG",)) as file:
            if file.width * file.height > _MOST:
                raise InputError("a mask is too large")
            picture = file.convert("LA")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"a mask is no PNG in base64 ({error})") from None
    return np.asarray(np.asarray(picture).all(axis=2))


def placed(part: Mask, at: tuple[int, int], size: Size) -> Mask:
    """A part of a mask whose top and left are ``at``. Raises `InputError` if it lies outside."""
    (top, left), (height, width) = at, part.shape
    if min(at) < 0 or min(part.shape) < 1 or top + height > size[0] or left + width > size[1]:
        raise InputError("a mask leaves its image")
    mask = np.zeros(size, bool)
    mask[top : top + height, left : left + width] = part
    return mask


def from_run_lengths(counts: NDArray[np.int64], size: Size, *, columns: bool) -> Mask:
    """A mask [H,W] from numbers of px that are 0, 1, 0 … in turn, down columns or along rows.

    Raises `InputError` if they are not as many as the mask has px.
    """
    if (counts < 0).any() or counts.sum() != size[0] * size[1]:
        raise InputError(f"run lengths do not make up {size[1]}x{size[0]} px")
    flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return np.asarray(flat.reshape(size, order="F" if columns else "C"))


def run_lengths_of(text: str) -> NDArray[np.int64]:
    """COCO's run lengths as text: numbers of 5 bits a character, from the third on differences.

    After pycocotools' ``rleFrString``. Raises `InputError` for another text.
    """
    counts: list[int] = []
    number = shift = 0
    for code in text.encode("ascii", "replace"):
        if not 48 <= code < 112 or shift > 60:
            raise InputError("a text of run lengths is damaged")
        number |= (code - 48 & 31) << shift
        shift += 5
        if code - 48 & 32:
            continue
        number -= (1 << shift) if code - 48 & 16 else 0
        counts.append(number + (counts[-2] if len(counts) > 2 else 0))
        number = shift = 0
    if shift:
        raise InputError("a text of run lengths ends too early")
    if any(abs(count) >= 1 << 40 for count in counts):
        raise InputError("a text of run lengths is damaged")
    return np.array(counts, np.int64)


def _inside(points: NDArray[np.float64], size: Size) -> Mask:
    """Px whose middle is inside: along a row, every crossing of the outline changes the side."""
    ends = np.roll(points, -1, axis=0)
    first, last = (
        np.ceil(f(points[:, 1], ends[:, 1]) - 0.5).clip(0, size[0]).astype(int)
        for f in (np.minimum, np.maximum)
    )
    edge = np.repeat(np.arange(len(points)), last - first)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(last - first) - last, last - first)
    (x, y), (dx, dy) = points[edge].T, (ends - points)[edge].T
    column = np.ceil(x + dx * (row + 0.5 - y) / dy - 0.5).clip(0, size[1]).astype(int)
    crossings = np.zeros((size[0], size[1] + 1), np.int64)
    np.add.at(crossings, (row, column), 1)
    return np.asarray(crossings.cumsum(axis=1)[:, :-1] % 2 == 1)


def _drawn(points: NDArray[np.float64], size: Size) -> Mask:
    mask = np.zeros(size, np.uint8)
    cv2.fillPoly(mask, [np.floor(points).astype(np.int32)], 1)
    return mask > 0
