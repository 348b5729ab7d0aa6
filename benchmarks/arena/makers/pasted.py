"""Patches of pictures on pictures: cut-paste, CutPaste, Crop-Paste."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from defectrt.training.data.samples import Sample
from defectrt.training.proving import arms

from ..folds import write_samples
from .writing import ANY, by_type, eight_bits, make_each, types_of

__all__ = ["crop_paste", "cut_paste", "cutpaste"]

#: CutPaste's patch: share of the picture, and width over height.
_AREA, _ASPECT = (0.02, 0.15), (0.3, 3.3)
#: Its scar: width and length in px of a picture of 256 px, degrees.
_WIDE, _LONG, _TURN = (2, 16), (10, 25), 45.0
_OF = 256
#: Change of colour at most.
_JITTER = 0.1


def cut_paste(
    shots: Sequence[Sample], good: Sequence[Sample], count: int, seed: int, out: Path
) -> None:
    """The cut-paste of `defectrt prove`: turned, scaled, matched in brightness, with a soft rim."""
    for place, (name, own) in enumerate(by_type(shots).items()):
        number = int(np.random.SeedSequence([seed, place]).generate_state(1)[0])
        write_samples(arms.cut_paste(own, good, count, number), out / name)


def crop_paste(
    shots: Sequence[Sample], good: Sequence[Sample], count: int, seed: int, out: Path
) -> None:
    """Crop-Paste (Lin et al. 2021): the defect's own pixels by its mask, mirrored, turned by 90°.

    Nothing is matched or blended: the outline of the mask is the outline of what is pasted.
    """
    for place, (name, own) in enumerate(by_type(shots).items()):

        def draw(rng: np.random.Generator, own: Sequence[Sample] = own) -> Any:
            shot, onto = own[rng.integers(len(own))], good[rng.integers(len(good))]
            ys, xs = np.nonzero(shot.mask)
            box = np.s_[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
            turns, mirrored = int(rng.integers(4)), bool(rng.integers(2))
            piece, mask = (
                np.rot90(a[box][:, ::-1] if mirrored else a[box], turns)
                for a in (eight_bits(shot.image), shot.mask)
            )
            return _pasted(onto, piece, mask, rng)

        make_each(out, name, count, [seed, place], draw)


def cutpaste(
    shots: Sequence[Sample],
    good: Sequence[Sample],
    count: int,
    seed: int,
    out: Path,
    *,
    scar: float = 0.5,
) -> None:
    """CutPaste (Li et al. 2021): a patch of a good picture, its colours jittered, elsewhere on it.

    ``scar`` is the share of thin, turned patches. The shots only say how many types there are.
    """

    def draw(rng: np.random.Generator) -> Any:
        onto = good[rng.integers(len(good))]
        thin = rng.random() < scar
        piece, mask = _scar(onto, rng) if thin else _patch(onto, rng)
        jitter = 1 + rng.uniform(-_JITTER, _JITTER, (1, 1, 1))
        shift = 255 * rng.uniform(-_JITTER, _JITTER)
        return _pasted(onto, np.clip(np.rint(piece * jitter + shift), 0, 255), mask, rng)

    make_each(out, ANY, count * len(types_of(shots)), [seed], draw)


def _patch(onto: Sample, rng: np.random.Generator) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    h, w = onto.mask.shape
    area = rng.uniform(*_AREA) * h * w
    aspect = np.exp(rng.uniform(*np.log(_ASPECT)))
    high, wide = (
        int(np.clip(v, 2, m - 2))
        for v, m in (((area / aspect) ** 0.5, h), ((area * aspect) ** 0.5, w))
    )
    y, x = rng.integers(h - high), rng.integers(w - wide)
    return eight_bits(onto.image)[y : y + high, x : x + wide], np.ones((high, wide), bool)


def _scar(onto: Sample, rng: np.random.Generator) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    h, w = onto.mask.shape
    scale = min(h, w) / _OF
    high, wide = (max(2, round(rng.uniform(*r) * scale)) for r in (_LONG, _WIDE))
    high, wide = min(high, h - 2), min(wide, w - 2)
    y, x = rng.integers(h - high), rng.integers(w - wide)
    piece = eight_bits(onto.image)[y : y + high, x : x + wide]
    side = int(np.hypot(high, wide)) + 2
    matrix: Any = cv2.getRotationMatrix2D(
        (wide / 2, high / 2), float(rng.uniform(-_TURN, _TURN)), 1
    )
    matrix[:, 2] += side / 2 - np.array([wide, high]) / 2
    turned = cv2.warpAffine(piece, matrix, (side, side), borderMode=cv2.BORDER_REFLECT)
    inside = cv2.warpAffine(
        np.ones((high, wide), np.uint8), matrix, (side, side), flags=cv2.INTER_NEAREST
    )
    return turned, inside > 0


def _pasted(onto: Sample, piece: Any, mask: Any, rng: np.random.Generator) -> Any:
    """The piece at some place where it lies whole; None if there is none."""
    room = np.array(onto.mask.shape) - mask.shape
    if (room < 1).any():
        return None
    y, x = rng.integers(room)
    place = np.s_[y : y + mask.shape[0], x : x + mask.shape[1]]
    image, label = eight_bits(onto.image).copy(), np.zeros(onto.mask.shape, bool)
    image[place][mask] = piece[mask]
    label[place] = mask
    return onto, image, label
