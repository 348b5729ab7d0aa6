"""The instances of a label."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import cv2
import numpy as np

from ..images.types import Bits, Mask

__all__ = ["MAX_GAP", "as_levels", "instances", "pieces", "with_level"]

#: px without label that an instance may bridge.
MAX_GAP = 8
#: In the mask of a sample, the value of the first of its types; each further one has one less.
_FIRST = 255


def as_levels(masks: Iterable[Mask]) -> Bits:
    """The masks [H,W] of a sample's types as one image [H,W]; `with_level` tells them apart."""
    levels = np.zeros(1, np.uint8)
    for i, mask in enumerate(masks):
        levels = np.where(mask, np.uint8(_FIRST - i), levels)
    return levels


def with_level(levels: Bits, index: int) -> Mask:
    """The mask [H,W] of one type, by its place among the sample's."""
    return np.asarray(levels == _FIRST - index)


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


def pieces(mask: Mask) -> Iterator[Mask]:
    """The parts [H,W] of a mask whose px touch, corners too."""
    count, numbers = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    return (np.asarray(numbers == i) for i in range(1, count))
