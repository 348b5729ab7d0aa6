"""Pictures and masks for training: read once, cropped around the defect at native resolution."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from defectrt.errors import InputError

__all__ = ["GOOD", "Batch", "Crops", "Sample", "read_good", "read_pairs"]

#: The kind of a picture without a defect.
GOOD = "good"

_PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff"}


@dataclass(frozen=True)
class Sample:
    """One picture and where its defect is.

    picture [H,W,3] uint8 RGB; mask [H,W] bool, all False in a good picture.
    """

    path: Path
    kind: str
    picture: NDArray[np.uint8]
    mask: NDArray[np.bool_]

    def sha256(self) -> str:
        """Hash of the picture file, for provenance."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()


def read_pairs(directory: Path, kind: str, *, mask_threshold: int = 1) -> list[Sample]:
    """Read the defects of one kind.

    Two layouts are recognised: ``name.jpg`` beside ``name.png`` (or ``name_mask.png``), and
    ``images/name.*`` beside ``masks/name.*``. A mask pixel of at least ``mask_threshold`` is
    defect. Raises `InputError` listing every picture that cannot be used.
    """
    images, masks = directory / "images", directory / "masks"
    if not (images.is_dir() and masks.is_dir()):
        images = masks = directory
    pairs = [(p, _mask_of(p, masks)) for p in _pictures(images)]
    if images == masks:
        taken = {mask for _, mask in pairs if mask}
        pairs = [(p, mask) for p, mask in pairs if p not in taken]
    faults, samples = [], []
    for path, mask_path in pairs:
        try:
            samples.append(_read_sample(path, mask_path, kind, mask_threshold))
        except InputError as fault:
            faults.append(str(fault))
    if not pairs:
        faults.append(f"{directory}: no pictures with masks; expected name.jpg beside name.png")
    if faults:
        raise InputError("\n".join(faults))
    return samples


def read_good(directory: Path) -> list[Sample]:
    """Read good pictures: every picture in ``directory``, sorted by name."""
    paths = list(_pictures(directory))
    if not paths:
        raise InputError(f"{directory}: no pictures")
    pictures = [_read(path, cv2.IMREAD_COLOR_RGB) for path in paths]
    return [
        Sample(path, GOOD, picture, np.zeros(picture.shape[:2], bool))
        for path, picture in zip(paths, pictures, strict=True)
    ]


def _pictures(directory: Path) -> Iterator[Path]:
    if not directory.is_dir():
        raise InputError(f"{directory}: no such folder")
    return (p for p in sorted(directory.iterdir()) if p.suffix.lower() in _PICTURES)


def _mask_of(picture: Path, masks: Path) -> Path | None:
    """Masks are PNG: anything lossy would smear their edge."""
    candidates = (masks / f"{picture.stem}{suffix}" for suffix in ("_mask.png", ".png"))
    return next((p for p in candidates if p.is_file() and p != picture), None)


def _read_sample(path: Path, mask_path: Path | None, kind: str, threshold: int) -> Sample:
    if mask_path is None:
        raise InputError(f"{path}: no mask beside it; expected {path.stem}.png")
    picture = _read(path, cv2.IMREAD_COLOR_RGB)
    mask = _read(mask_path, cv2.IMREAD_GRAYSCALE) >= threshold
    if mask.shape != picture.shape[:2]:
        raise InputError(f"{mask_path}: the mask is {_size(mask)}, its picture {_size(picture)}")
    if not mask.any():
        raise InputError(f"{mask_path}: the mask is empty; move good pictures to --good")
    return Sample(path, kind, picture, mask)


def _read(path: Path, flags: int) -> NDArray[np.uint8]:
    data = np.frombuffer(path.read_bytes(), np.uint8)
    picture = cv2.imdecode(data, flags) if data.size else None
    if picture is None:
        raise InputError(f"{path}: not a picture that can be read")
    return np.asarray(picture, np.uint8)


def _size(a: NDArray[np.generic]) -> str:
    return f"{a.shape[1]}x{a.shape[0]}"


@dataclass(frozen=True)
class Batch:
    """B crops: pixels [B,3,S,S] float32 in [-1,1], mask [B,1,S,S] float32 in {0,1}, kinds."""

    pixels: NDArray[np.float32]
    mask: NDArray[np.float32]
    kinds: tuple[str, ...]


class Crops:
    """Square crops of side ``window``, a pure function of (seed, step): nothing to checkpoint.

    A share ``good`` of every batch comes from good pictures, from anywhere in them; the rest
    shows the kinds of defect equally often, with at least one defect pixel in view. Pictures
    smaller than the window are extended by reflection. Crops are mirrored at random and their
    contrast and brightness varied a little; masks stay exact because nothing is resampled.
    """

    def __init__(
        self, samples: Sequence[Sample], window: int, *, good: float = 0.5, seed: int = 0
    ) -> None:
        """Take samples of any kinds; ``good`` in [0,1] counts only when both sorts are there."""
        self._window, self._seed = window, seed
        padded = [_extend(sample, window) for sample in samples]
        self._good = [s for s in padded if s.kind == GOOD]
        kinds = sorted({s.kind for s in padded} - {GOOD})
        self._defects = [[s for s in padded if s.kind == kind] for kind in kinds]
        if not padded:
            raise InputError("there are no pictures to train on; give --good or --defect")
        self._share = good if self._good and kinds else float(not kinds)

    def batch(self, step: int, size: int) -> Batch:
        """The batch of ``size`` crops that belongs to ``step``."""
        rng = np.random.default_rng([self._seed, step])
        crops = [self._crop(rng) for _ in range(size)]
        pixels, masks, kinds = zip(*crops, strict=True)
        return Batch(np.stack(pixels), np.stack(masks), kinds)

    def _crop(
        self, rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], str]:
        sample = self._draw(rng)
        y, x = self._corner(sample.mask, rng)
        view = np.s_[y : y + self._window, x : x + self._window]
        pixels = sample.picture[view].astype(np.float32) / 127.5 - 1
        mask = sample.mask[view].astype(np.float32)
        pixels = np.clip(pixels * rng.uniform(0.9, 1.1) + rng.uniform(-0.05, 0.05), -1, 1)
        flips = tuple(axis for axis in (0, 1) if rng.random() < 0.5)
        pixels, mask = np.flip(pixels, flips), np.flip(mask, flips)
        return np.ascontiguousarray(pixels.transpose(2, 0, 1)), mask[None].copy(), sample.kind

    def _draw(self, rng: np.random.Generator) -> Sample:
        if rng.random() < self._share:
            return self._good[rng.integers(len(self._good))]
        kind = self._defects[rng.integers(len(self._defects))]
        return kind[rng.integers(len(kind))]

    def _corner(self, mask: NDArray[np.bool_], rng: np.random.Generator) -> tuple[int, int]:
        """Anywhere for a good picture; else around a random defect pixel."""
        limit = np.array(mask.shape) - self._window
        if not mask.any():
            return tuple(rng.integers(limit + 1))
        ys, xs = np.nonzero(mask)
        i = rng.integers(len(ys))
        inset = self._window // 8
        offset = rng.integers(inset, self._window - inset, size=2)
        y, x = np.clip(np.array([ys[i], xs[i]]) - offset, 0, limit)
        return int(y), int(x)


def _extend(sample: Sample, window: int) -> Sample:
    missing = [max(0, window - side) for side in sample.mask.shape]
    if not any(missing):
        return sample
    pad = [(n // 2, n - n // 2) for n in missing]
    picture = np.pad(sample.picture, [*pad, (0, 0)], mode="symmetric")
    return Sample(sample.path, sample.kind, picture, np.pad(sample.mask, pad, mode="symmetric"))
