"""Drawn pictures with and without a dark spot, for what compares made defects with real ones."""

from __future__ import annotations

import numpy as np
from PIL import Image

#: Side of a picture, px.
SIDE = 64


def spot(path, seed, *, depth=60, radius=5, place=None, surface=None):
    """A picture and its mask beside it; without ``depth`` a good one without a mask.

    ``surface`` is the seed of what lies around the spot; by default every picture has its own.
    """
    rng = np.random.default_rng(seed)
    image = np.random.default_rng(seed if surface is None else surface).normal(150, 5, (SIDE, SIDE))
    y, x = place or rng.integers(16, SIDE - 16, 2)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    mask = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
    path.parent.mkdir(parents=True, exist_ok=True)
    if depth:
        image[mask] -= depth
        Image.fromarray(mask.astype(np.uint8) * 255).save(path.with_suffix(".png"))
    Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(path.with_suffix(".bmp"))
