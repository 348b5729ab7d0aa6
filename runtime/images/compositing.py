"""The model's change composited onto the original: weight, border, own bit depth."""

from __future__ import annotations

import cv2
import numpy as np

from .types import Bits, Mask, Pixels, has_alpha

__all__ = ["composite", "feather"]

#: Channels of grey differ by one part in so many of the range at most: what a JPEG leaves.
_GREY = 100


def feather(mask: Mask, grow: float, width: float) -> Pixels:
    """Weight of the result, [H,W] in [0,1]: 1 up to ``grow`` px from the mask, then falling.

    Exactly 0 from ``grow + width`` px on, so that everything there stays as it was.
    """
    distance = cv2.distanceTransform(1 - mask.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    ramp = np.clip(1 - (distance - grow) / max(width, 1e-6), 0, 1)
    return np.asarray(ramp * ramp * (3 - 2 * ramp), np.float32)


def composite(source: Bits, change: Pixels, weight: Pixels) -> Bits:
    """``source + weight · change``, at the source's own bit depth and number of channels.

    source [H,W,C]; change [H,W,3] in units of the full range; weight [H,W] in [0,1]. Where the
    weight is 0 the result is bit-identical; alpha is never touched; grey takes the mean change,
    also grey that is stored in three channels.
    """
    colours = source.shape[2] - has_alpha(source)
    if _is_grey(source[..., :colours]):
        change = change.mean(axis=2, keepdims=True)
    top = np.iinfo(source.dtype).max
    result = source.copy()
    moved = source[..., :colours] + np.float64(top) * weight[..., None] * change
    touched = weight > 0
    result[touched, :colours] = np.clip(np.rint(moved[touched]), 0, top).astype(source.dtype)
    return result


def _is_grey(source: Bits) -> bool:
    """Whether no channel differs from the first by more than `_GREY`, as a monochrome camera's."""
    first, least = source[..., 0].astype(np.int32), np.iinfo(source.dtype).max // _GREY
    others = (source[..., c] for c in range(1, source.shape[2]))
    return all(np.abs(first - other).max(initial=0) <= least for other in others)
