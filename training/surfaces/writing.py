"""Drawn surfaces as files, by several processes: in a module of its own, which these can import."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from defectrt.images.png import encode_png
from defectrt.progress import Progress

from . import DEFECT_TYPES, FAMILIES, draw

__all__ = ["write"]


class _Image(NamedTuple):
    """One image that is to be drawn, and its path without a suffix."""

    seed: int
    family: str
    defect: str | None
    path: Path


def write(out: Path, count: int, size: int, seed: int, window: int, workers: int) -> None:
    """``count`` images of every defect type and as many good ones, the families in turn.

    They are drawn by ``workers`` processes; an image depends on its own seed alone.
    """
    images = list(_images(out, count, seed))
    for folder in {image.path.parent for image in images}:
        folder.mkdir(parents=True, exist_ok=True)
    one = partial(_write_one, size=size, window=window)
    with (
        Progress(len(images), "surfaces") as progress,
        ProcessPoolExecutor(workers, get_context("spawn"), cv2.setNumThreads, (1,)) as pool,
    ):
        for done, _ in enumerate(pool.map(one, images, chunksize=8), 1):
            progress.update(done)


def _images(out: Path, count: int, seed: int) -> Iterator[_Image]:
    families = sorted(FAMILIES)
    for group, defect in enumerate([None, *DEFECT_TYPES]):
        for i in range(count):
            family = families[i % len(families)]
            path = out / (defect or "good") / f"{family}_{i:05}"
            yield _Image((seed * 100 + group) * 1_000_000 + i, family, defect, path)


def _write_one(image: _Image, size: int, window: int) -> None:
    pixels, mask = draw(image.seed, image.family, size, image.defect, window=window)
    image.path.with_name(f"{image.path.name}.png").write_bytes(encode_png(pixels))
    if image.defect:
        label = mask.astype(np.uint8) * np.uint8(255)
        image.path.with_name(f"{image.path.name}_mask.png").write_bytes(encode_png(label))
