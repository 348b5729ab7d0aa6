"""Places that look like those where the examples' defects lie: a model's pictures of nothing else.

A defect of the middle of a surface does not sit on its dark rim, on the background beside the
workpiece, or half outside the image, unless the examples show that it does. What a place looks like
is said in one number: the brightness of the surface around it, as a share of the image's median.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..images.types import Bits, Mask, brightness
from .regions import Region

__all__ = ["LikeExamples", "Places", "level", "look"]

#: Standard deviation of the blur that says how bright a surface is, px.
_BLUR = 4.0
#: Px around a defect that say nothing of the surface.
_AROUND = 4
#: What the levels of few examples leave out on each side, as a share of the median.
_SLACK = 0.1
#: Percentiles of the levels under one example; a level above all.
_RANGE, _ANY = (5, 95), 1e6
#: Share of the blur's weight that has to be seen for a level.
_SEEN = 1e-3


class Places(BaseModel):
    """Where the defects of one type lie.

    low, high  brightness of the surface there, as a share of the image's median
    at_frame   whether any touches the border of its image
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    low: Annotated[float, Field(allow_inf_nan=False)]
    high: Annotated[float, Field(allow_inf_nan=False)]
    at_frame: bool

    @model_validator(mode="after")
    def _a_range(self) -> Places:
        if self.low > self.high:
            raise ValueError("low is more than high")
        return self


def level(image: Bits, hidden: Mask | None = None) -> NDArray[np.float32]:
    """Brightness of the surface around every px, as a share of the median: [H,W,C] -> [H,W].

    What is ``hidden`` [H,W] is not seen; the surface beside it stands for it, and where there is
    none near enough the level is NaN.
    """
    grey = brightness(image)
    clear = np.ones(grey.shape, np.float32) if hidden is None else (~hidden).astype(np.float32)
    seen = grey[clear > 0]
    median = max(float(np.median(seen)) if seen.size else 0.0, 1e-3)
    weight = cv2.GaussianBlur(clear, (0, 0), _BLUR)
    blurred = cv2.GaussianBlur(grey * clear, (0, 0), _BLUR)
    levels = blurred / np.maximum(weight, 1e-6) / median
    return np.asarray(np.where(weight > _SEEN, levels, np.nan), np.float32)


def look(examples: Iterable[tuple[Bits, Mask]]) -> Places:
    """Where the defects of some examples lie: images [H,W,C] and masks [H,W] that are not empty."""
    lows, highs, at_frame = list[float](), list[float](), False
    for image, mask in examples:
        around = cv2.dilate(mask.astype(np.uint8), np.ones((2 * _AROUND + 1,) * 2, np.uint8)) > 0
        levels = level(image, around)[mask]
        if not np.isnan(levels).all():
            low, high = np.nanpercentile(levels, _RANGE)
            lows, highs = [*lows, float(low)], [*highs, float(high)]
        at_frame |= bool(mask[[0, -1]].any() or mask[:, [0, -1]].any())
    if not lows:  # every example fills its image
        return Places(low=0.0, high=_ANY, at_frame=at_frame)
    return Places(low=min(lows) - _SLACK, high=max(highs) + _SLACK, at_frame=at_frame)


class LikeExamples:
    """The part of an image that looks like the examples' places."""

    def __init__(self, places: Places) -> None:
        """As they were found by `look`."""
        self._places = places

    def __call__(self, source: str, image: Bits) -> Region:
        """Where the surface is as bright as there; the image's border too, if they lie at it."""
        levels, places = level(image), self._places
        mask = (levels >= places.low) & (levels <= places.high)
        if not places.at_frame:
            mask[[0, -1]] = False
            mask[:, [0, -1]] = False
        return Region(mask, self.record())

    def record(self) -> dict[str, Any]:
        """The examples, which are recorded with the shapes or the engine, decide the places."""
        return {"from": "examples"}
