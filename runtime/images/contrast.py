"""How strong a defect is: its contrast to its surroundings.

Weber's contrast of the px that are furthest from what is around them: 0 as it, 0.5 half as bright
or half as bright again, 1 black or twice as bright.
"""

from __future__ import annotations

import cv2
import numpy as np

from .types import Bits, Mask, Pixels, brightness

__all__ = ["contrast", "grey", "strength", "strength_in", "surroundings"]

#: Sides of two squares: between what one and the other reach around a mask, its surroundings lie.
_NEAR, _FAR = 5, 17
#: Share of a defect's px beyond what counts as furthest, so that single px decide nothing.
_BEYOND = 0.05
#: Brightness that counts as black.
_BLACK = 1e-3


def grey(image: Bits) -> Pixels:
    """[H,W,C] -> [H,W] in [0,1]."""
    return brightness(image) / np.float32(np.iinfo(image.dtype).max)


def surroundings(levels: Pixels, mask: Mask, seen: Mask | None = None) -> float | None:
    """Median brightness of a ring around a defect, 3 to 8 px from it; None if there is none.

    levels [H,W] in [0,1]; mask [H,W] of the defect; ``seen`` [H,W], what counts at all.
    """
    own = mask.astype(np.uint8)
    far, near = (cv2.dilate(own, np.ones((side, side), np.uint8)) for side in (_FAR, _NEAR))
    ring = (far > near) if seen is None else (far > near) & seen
    return float(np.median(levels[ring])) if ring.any() else None


def strength(values: Pixels, around: float) -> float:
    """Of a defect's px [n] in [0,1], beside what is around it."""
    return max(contrast(values, around, dark=True), contrast(values, around, dark=False))


def strength_in(image: Bits, mask: Mask) -> float | None:
    """Of a defect in an image [H,W,C] under a mask [H,W] that is not empty; None if all is mask."""
    levels = grey(image)
    around = surroundings(levels, mask)
    return None if around is None else strength(levels[mask], around)


def contrast(values: Pixels, around: float, *, dark: bool) -> float:
    """Of a defect's px [n] to one side alone: how much darker, or brighter, than what is around."""
    place = int(_BEYOND * (len(values) - 1))
    if not dark:
        place = len(values) - 1 - place
    level = float(np.partition(values, place)[place])
    return ((around - level) if dark else (level - around)) / max(around, _BLACK)
