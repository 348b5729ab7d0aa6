"""Perlin noise as mask, a texture in it: how DRAEM (Zavrtanik et al. 2021) makes its anomalies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from defectrt.errors import InputError
from defectrt.masks.shapes import perlin
from defectrt.training.data.samples import Sample, read_good

from .writing import ANY, eight_bits, make_each, types_of

__all__ = ["make"]

#: Cells of the noise across the picture are 2 to a power of 0 to this; noise above this is defect.
_POWERS, _ABOVE = 6, 0.5
#: How much of the good picture shines through, at most.
_THROUGH = 0.8
#: Px of a defect at least.
_LEAST = 8


def make(
    shots: Sequence[Sample],
    good: Sequence[Sample],
    count: int,
    seed: int,
    out: Path,
    *,
    textures: str | None = None,
) -> None:
    """Write pictures of a foreign texture within thresholded Perlin noise, both drawn.

    ``textures`` is a folder of pictures, as DTD for DRAEM; without it the texture is a strongly
    changed picture of another good part. The shots only say how many types there are.
    """
    foreign = read_good(Path(textures)) if textures else good
    if not good or not foreign:
        raise InputError("Perlin: needs good pictures, and textures where they are named")

    def draw(rng: np.random.Generator) -> Any:
        onto = good[rng.integers(len(good))]
        h, w = onto.mask.shape
        mask = _noise(rng, (h, w)) > _ABOVE
        if mask.sum() < _LEAST:
            return None
        source = foreign[rng.integers(len(foreign))]
        texture = _changed(eight_bits(source.image), rng)
        texture = cv2.resize(texture, (w, h), interpolation=cv2.INTER_AREA).astype(np.float32)
        image = eight_bits(onto.image).copy()
        through = float(rng.uniform(0, _THROUGH))
        mixed = through * image + (1 - through) * texture
        image[mask] = np.clip(np.rint(mixed), 0, 255)[mask].astype(np.uint8)
        return onto, image, mask

    make_each(out, ANY, count * len(types_of(shots)), [seed], draw)


def _noise(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Perlin noise [H,W] in [-1,1], cells of another length down than across, turned."""
    h, w = shape
    side = int(1.5 * max(h, w))  # whole, however it is turned
    few, many = sorted((2 ** rng.integers(0, _POWERS, 2)).tolist())
    cell = max(h, w) / many
    narrow: Any = perlin(rng, (side, max(4, side * few // many)), cell)
    noise: Any = cv2.resize(narrow.astype(np.float32), (side, side))
    if rng.integers(2):
        noise = np.ascontiguousarray(noise.T)
    middle, angle = (side / 2, side / 2), float(rng.uniform(-90, 90))
    turned: Any = cv2.warpAffine(noise, cv2.getRotationMatrix2D(middle, angle, 1), (side, side))
    y, x = (side - h) // 2, (side - w) // 2
    inside = turned[y : y + h, x : x + w]
    return np.asarray(inside / max(float(np.abs(inside).max()), 1e-6), np.float32)


def _changed(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Three of DRAEM's nine changes, drawn."""
    ways = [
        lambda p: p.point([min(255, int(255 * (v / 255) ** gamma)) for v in range(256)] * 3),
        lambda p: ImageEnhance.Brightness(p).enhance(0.8 + 0.4 * share),
        lambda p: ImageEnhance.Sharpness(p).enhance(4.0),
        lambda p: ImageEnhance.Color(p).enhance(2 * share),
        lambda p: ImageOps.solarize(p, 32 + int(96 * share)),
        lambda p: ImageOps.posterize(p, 2 + int(3 * share)),
        ImageOps.invert,
        ImageOps.autocontrast,
        ImageOps.equalize,
    ]
    picture = Image.fromarray(image)
    for i in rng.choice(len(ways), 3, replace=False):
        gamma, share = float(rng.uniform(0.5, 2.0)), float(rng.random())
        picture = ways[i](picture)
    array = np.asarray(picture.rotate(float(rng.uniform(-45, 45)), Image.Resampling.BILINEAR))
    cut = int(0.15 * min(array.shape[:2]))  # what the turn left black lies at the corners
    return np.ascontiguousarray(array[cut:-cut, cut:-cut])
