"""Loose masks: what a hand draws around a defect, made of the exact mask.

A mask of training hugs its defect, and a model that saw no other fills whatever it is given. A
share of loose ones teaches it what their form says: somewhere in this box, along this stroke.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from defectrt.images.window import bounds

__all__ = ["loosened"]

#: Room between a defect and its box, as shares of the view's side; half the width of a stroke.
_ROOM, _STROKE = (0.01, 0.12), (0.03, 0.09)
#: What is no thicker, as a share of the view's side, may get a stroke.
_THIN = 0.08
#: A mask that covers more of the view leaves too little background to paint from.
_MOST = 0.6


def loosened(mask: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.bool_]:
    """A box or a broad stroke around what is set in ``mask`` [S,S]; itself if that is too much.

    A stroke only around what is thin: around a spot it could not be told from a larger spot.
    """
    if not mask.any():
        return mask
    side = len(mask)
    within = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    thin = 2 * float(within.max()) <= _THIN * side
    made = _stroke(mask, rng) if thin and rng.random() < 0.5 else _box(mask, rng)
    return made if made.mean() <= _MOST else mask


def _stroke(mask: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.bool_]:
    reach = 2 * round(float(rng.uniform(*_STROKE)) * len(mask)) + 1
    round_ = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
    return np.asarray(cv2.dilate(mask.astype(np.uint8), round_) > 0)


def _box(mask: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.bool_]:
    y, x = bounds(mask)
    room = np.ceil(rng.uniform(*_ROOM, 4) * len(mask)).astype(int)
    box = np.zeros_like(mask)
    top, left = max(0, y.start - room[0]), max(0, x.start - room[1])
    box[top : y.stop + room[2], left : x.stop + room[3]] = True
    return box
