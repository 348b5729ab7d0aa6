"""Mask refinement, Eq. 13: the label is where the defect really is, not where it was asked for.

Two witnesses. *Attention* is the paper's: where the latent attended to the words of the defect.
The paper leaves the average and the norm open (its softmax sums to 1 over the tokens, so a bare
½ depends on their number); here the map is the mean over heads, layers and steps of the
attention to the prompt's content tokens, divided by its maximum inside the mask. *Change* is
ours: the background is known, so the difference to the good image shows where something is. What
healthy paint does is not something: it has a grain of its own, so a surface that is painted anew
changes as much as it varies (``docs/decisions/0023-shown.md``).
"""

from __future__ import annotations

import cv2
import numpy as np

from ..config.synthesis import SynthesisConfig
from ..diffusion.rows import Floats
from ..images.types import Mask, Pixels, channel_max

__all__ = ["appeared", "attention_witness", "grain", "refine"]

#: Share of normal values that lie within one standard deviation.
_ONE_SIGMA = 0.6827
#: Standard deviation in px of the blur that leaves a surface's light and tone, without its grain.
_EVEN = 8.0


def appeared(mask: Mask, before: Pixels, after: Pixels, config: SynthesisConfig) -> Mask:
    """The part of ``mask`` [H,W] in which more changed than where a good surface is painted anew.

    before, after [H,W,3] in [0,1], the good image and the result, both decoded. Smoothed against
    grain within the mask, so that nothing beside it counts, the change is at least ``min_change``
    and ``min_grain`` times the `grain` together.
    """
    least = config.min_change + config.min_grain * grain(before, config.refine_smooth)
    inside = mask.astype(np.float32)
    share = np.maximum(_smoothed(inside, config.refine_smooth), np.float32(1e-6))
    change = np.abs(_smoothed((after - before) * inside[..., None], config.refine_smooth))
    return _without_specks(mask & (channel_max(change) >= least * share), config.refine_min_area)


def grain(image: Pixels, smooth: float) -> float:
    """How much a surface varies by itself: image [H,W,3] in [0,1], smoothed by so many px.

    What two thirds of the px stay below, without what varies slowly, in the channel with the most:
    the standard deviation of a grain alone, and hardly moved by an edge or a print that lies in it.
    """
    fine = np.abs(_smoothed(image, smooth) - _smoothed(image, _EVEN))
    amounts = fine.reshape(-1, fine.shape[2])
    place = int(_ONE_SIGMA * len(amounts))
    return float(np.partition(amounts, place, axis=0)[place].max())


def refine(mask: Mask, attention: Floats, shown: Mask, config: SynthesisConfig) -> Mask:
    """The label: the part of ``mask`` [H,W] in which the defect appeared, maybe none of it.

    attention [r,r] over the same window; ``shown`` [H,W] is what `appeared`.
    """
    if config.refine == "none":
        return mask.copy()
    if config.refine == "change":
        return shown
    refined = mask & attention_witness(mask, attention, config.refine_threshold)
    if config.refine == "both":
        refined &= shown
    return _without_specks(refined, config.refine_min_area)


def attention_witness(mask: Mask, attention: Floats, threshold: float) -> Mask:
    """Eq. 13: the attention map, resized, at least ``threshold`` of its maximum in the mask."""
    size = mask.shape[1], mask.shape[0]
    inside = np.where(mask, cv2.resize(attention, size, interpolation=cv2.INTER_LINEAR), 0)
    top = inside.max()
    return np.asarray(inside >= threshold * top) if top > 0 else np.zeros_like(mask)


def _smoothed(values: Pixels, sigma: float) -> Pixels:
    return np.asarray(cv2.GaussianBlur(values, (0, 0), sigma)) if sigma > 0 else values


def _without_specks(mask: Mask, min_area: int) -> Mask:
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    keep = stats[:, cv2.CC_STAT_AREA] >= min_area
    keep[0] = False  # the background
    return np.asarray(keep[labels]) if count > 1 else mask
