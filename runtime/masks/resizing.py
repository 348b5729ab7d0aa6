"""A mask at another resolution, so that a defect is never lost."""

from __future__ import annotations

import numpy as np

from ..diffusion.rows import Floats
from ..images.types import Mask

__all__ = ["latent_mask", "reduce_mask"]


def reduce_mask(mask: Mask, height: int, width: int) -> Mask:
    """[H,W] -> [height,width]: a cell is set if any pixel in it is.

    The cells need not divide the image evenly, and there may be more of them than pixels; nothing
    that is set gets lost.
    """
    if height > mask.shape[0] or width > mask.shape[1]:
        times = -(-height // mask.shape[0]), -(-width // mask.shape[1])
        mask = mask.repeat(times[0], axis=0).repeat(times[1], axis=1)
    ys, xs = np.nonzero(mask)
    out = np.zeros((height, width), bool)
    out[ys * height // mask.shape[0], xs * width // mask.shape[1]] = True
    return out


def latent_mask(mask: Mask, height: int, width: int) -> Floats:
    """A window's mask at latent resolution: [S,S] bool -> [1,height,width] float32 in {0,1}."""
    return reduce_mask(mask, height, width).astype(np.float32)[None]
