"""The arms of a proof: what a detector is trained on beside the real pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from defectrt.images.types import Bits, Mask

from ..data.samples import Sample
from .config import ProveConfig

__all__ = ["CUT_PASTE", "HEALTHY", "REAL", "Arm", "arms", "cut_paste"]

REAL, CUT_PASTE, HEALTHY = "real alone", "real + cut-paste", "real + healthy"
#: px around a cut-out, and the width of its soft rim.
_RIM, _SOFT = 4, 1.0
#: Scales of a cut-out, and places tried for it.
_SCALES, _TRIES = (0.7, 1.3), 20


@dataclass(frozen=True)
class Arm:
    """What is added to the real pictures.

    made      the index of the set of made pictures, None for the other arms
    share     of made ones among the crops that show a defect
    per_real  made pictures per real one at most; None: all
    """

    name: str
    made: int | None = None
    share: float = 0.0
    per_real: int | None = None


def arms(config: ProveConfig, names: Sequence[str]) -> list[Arm]:
    """Real alone, cut-paste, and every set of ``names`` at every share and number."""
    found = [Arm(REAL), Arm(CUT_PASTE, share=config.share[-1])]
    if config.healthy:
        found.append(Arm(HEALTHY))
    for made, name in enumerate(names):
        for share in config.share:
            for per_real in config.per_real or (None,):
                told = [f"real + {name}"]
                told += [f"share {share:g}"] if len(config.share) > 1 else []
                told += [f"{per_real} per real"] if per_real else []
                found.append(Arm(", ".join(told), made, share, per_real))
    return found


def cut_paste(
    shots: Sequence[Sample], good: Sequence[Sample], count: int, seed: int
) -> list[Sample]:
    """Defects cut from real pictures and pasted onto good ones, turned and scaled.

    The brightness around the defect is matched to that of its new place, and its rim is soft.
    Fewer than ``count`` come back where cut-outs do not fit the good pictures.
    """
    rng = np.random.default_rng([seed, 1])
    made = []
    for number in range(count):
        for _ in range(_TRIES):
            shot = shots[int(rng.integers(len(shots)))]
            onto = good[int(rng.integers(len(good)))]
            pasted = _paste(shot, onto, rng)
            if pasted is not None:
                name = Path(f"{onto.path.stem}_{number:03d}.png")
                made.append(Sample(name, shot.defect_type, *pasted))
                break
    return made


def _paste(shot: Sample, onto: Sample, rng: np.random.Generator) -> tuple[Bits, Mask] | None:
    """A picture with the defect of ``shot``, and its mask; None if it does not fit."""
    piece, mask = _turned(*_cut(shot), float(rng.uniform(0, 360)), float(rng.uniform(*_SCALES)))
    room = np.array(onto.mask.shape) - mask.shape
    if not mask.any() or (room < 1).any():
        return None
    y, x = rng.integers(room)
    place = np.s_[y : y + mask.shape[0], x : x + mask.shape[1]]
    image = onto.image.astype(np.float32)
    there = image[place]
    ring = (_grown(mask, 2 * _RIM + 1) > mask)[..., None]
    shift = _mean(there, ring) - _mean(piece, ring)
    soft = cv2.GaussianBlur(_grown(mask, 3), (0, 0), _SOFT)[..., None]
    image[place] = there * (1 - soft) + (piece + shift) * soft
    label = np.zeros(onto.mask.shape, bool)
    label[place] = mask > 0
    top = np.iinfo(onto.image.dtype).max
    rounded: Any = np.clip(np.rint(image), 0, top).astype(onto.image.dtype)
    return rounded, label


def _cut(shot: Sample) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The defect with a rim around it: [h,w,3] and its mask [h,w]."""
    ys, xs = np.nonzero(shot.mask)
    box = np.s_[
        max(0, ys.min() - _RIM) : ys.max() + _RIM + 1, max(0, xs.min() - _RIM) : xs.max() + _RIM + 1
    ]
    return shot.image[box].astype(np.float32), shot.mask[box].astype(np.float32)


def _turned(
    piece: NDArray[np.float32], mask: NDArray[np.float32], angle: float, scale: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Turned by ``angle`` degrees and scaled, in a square that holds it whole."""
    h, w = mask.shape
    side = int(np.hypot(h, w) * scale) + 2
    matrix: Any = cv2.getRotationMatrix2D((w / 2, h / 2), angle, scale)
    matrix[:, 2] += side / 2 - np.array([w, h]) / 2
    turned = cv2.warpAffine(piece, matrix, (side, side), borderMode=cv2.BORDER_REFLECT)
    inside = cv2.warpAffine(mask, matrix, (side, side)) > 0.5
    ys, xs = np.nonzero(_grown(inside.astype(np.float32), 2 * _RIM + 1))
    if not len(ys):
        return np.asarray(turned, np.float32), inside.astype(np.float32)
    box = np.s_[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
    return turned[box].astype(np.float32), inside[box].astype(np.float32)


def _grown(mask: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    return np.asarray(cv2.dilate(mask, np.ones((side, side), np.uint8)), np.float32)


def _mean(image: NDArray[np.float32], where: NDArray[np.bool_]) -> float:
    return float(image[where[..., 0]].mean()) if where.any() else 0.0
