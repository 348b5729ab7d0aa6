"""Mask refinement, Eq. 13: the label is where the defect really is, not where it was asked for.

Two witnesses. *Attention* is the paper's: where the latent attended to the words of the defect.
The paper leaves the average and the norm open (its softmax sums to 1 over the tokens, so a bare
½ depends on their number); here the map is the mean over heads, layers and steps of the
attention to the prompt's content tokens, divided by its maximum inside the mask. *Change* is
ours: the background is known, so the difference to the good image shows where something is.
"""

from __future__ import annotations

import cv2
import numpy as np

from ..config.synthesis import SynthesisConfig
from ..diffusion.rows import Floats
from ..images.types import Mask, Pixels

__all__ = ["attention_witness", "change_witness", "refine"]


def refine(mask: Mask, attention: Floats, change: Pixels, config: SynthesisConfig) -> Mask:
    """The part of ``mask`` [H,W] in which the defect appeared, maybe none of it.

    attention [r,r] over the same window; change [H,W] in [0,1], the absolute difference.
    What counts is in the configuration's ``refine``, ``refine_*`` and ``min_change``.
    """
    if config.refine == "none":
        return mask.copy()
    refined = mask.copy()
    if config.refine in ("attention", "both"):
        refined &= attention_witness(mask, attention, config.refine_threshold)
    if config.refine in ("change", "both"):
        refined &= change_witness(change, config.min_change, config.refine_smooth)
    return _without_specks(refined, config.refine_min_area)


def attention_witness(mask: Mask, attention: Floats, threshold: float) -> Mask:
    """Eq. 13: the attention map, resized, at least ``threshold`` of its maximum in the mask."""
    size = mask.shape[1], mask.shape[0]
    inside = np.where(mask, cv2.resize(attention, size, interpolation=cv2.INTER_LINEAR), 0)
    top = inside.max()
    return np.asarray(inside >= threshold * top) if top > 0 else np.zeros_like(mask)


def change_witness(change: Pixels, min_change: float, smooth: float) -> Mask:
    """Where the difference, a little smoothed against grain, is at least ``min_change``."""
    smoothed = cv2.GaussianBlur(change, (0, 0), smooth) if smooth > 0 else change
    return np.asarray(smoothed >= min_change)


def _without_specks(mask: Mask, min_area: int) -> Mask:
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    keep = stats[:, cv2.CC_STAT_AREA] >= min_area
    keep[0] = False  # the background
    return np.asarray(keep[labels]) if count > 1 else mask
