"""The instances of a label."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from ..images.types import Mask

__all__ = ["MAX_GAP", "instances"]

#: px without label that an instance may bridge.
MAX_GAP = 8


def instances(label: Mask) -> Iterator[Mask]:
    """The label's instances, each a mask [H,W]; together they are the label.

    Pieces with at most `MAX_GAP` px between them are one.
    """
    ys, xs = np.nonzero(label)
    if not len(ys):
        return
    box = slice(ys.min(), ys.max() + 1), slice(xs.min(), xs.max() + 1)
    reach = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (MAX_GAP + 1, MAX_GAP + 1))
    grown = cv2.dilate(label[box].astype(np.uint8), reach)
    count, groups = cv2.connectedComponents(grown, connectivity=8)
    for i in range(1, count):
        mask = np.zeros_like(label)
        mask[box] = label[box] & (groups == i)
        yield mask
