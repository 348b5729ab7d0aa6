"""One sample at once, cut out around its defect: what a job would put into its dataset."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from defectrt.config.job import SynthesizerConfig
from defectrt.errors import InputError
from defectrt.images.given import in_channels, read_given
from defectrt.images.png import to_base64
from defectrt.images.preview import Shown, around, difference, resized, shown
from defectrt.images.types import Bits
from defectrt.synthesis.turns import Turns, shares_of
from defectrt.synthesis.workpiece import Checked, Result, Workpiece

__all__ = ["GAIN", "cut_out", "read_workpiece", "type_in_job"]

#: How many times stronger a difference is shown.
GAIN = 4
#: px of a cut-out: at least, beyond the defect on each side, and at most as it is sent.
_LEAST, _CONTEXT, _SIDE = 192, 48, 768


def type_in_job(
    config: SynthesizerConfig, defect_types: Sequence[str], names: Sequence[str], name: str
) -> str:
    """Which type the first sample of a picture is of, in a job over all ``names``.

    Raises `UsageError` for types that the engine does not make, `InputError` for another picture.
    """
    if name not in names:
        raise InputError(f"{name}: not in the folder any more")
    shares = shares_of(config.defect, defect_types)
    turns = Turns([shares], names, config.seed, config.count)
    return next(turns.of(names.index(name)))[1]


def read_workpiece(path: Path, name: str, config: SynthesizerConfig, defect: str) -> Checked:
    """The good picture, as a job reads it. Raises `InputError`.

    Where masks are drawn, samples share what is computed of the picture, as a job's do.
    """
    changed = path.stat().st_mtime_ns if path.exists() else 0
    if config.masks:
        return _shared(path, changed, name, defect, config.engine)
    return Checked(Workpiece(_read(path, changed), name=name, defect=defect))


@lru_cache(maxsize=2)
def _read(path: Path, changed: int) -> Bits:
    return read_given(path, path.name)


@lru_cache(maxsize=2)
def _shared(path: Path, changed: int, name: str, defect: str, engine: Path | None) -> Checked:
    return Checked(Workpiece(_read(path, changed), name=name, defect=defect))


def cut_out(workpiece: Checked, result: Result) -> dict[str, Any]:
    """A sample for the page: where it is cut out, as [x, y, width, height], and four PNGs."""
    good, image = workpiece.source.image, in_channels(result.image)
    y, x = box = around(result.band | result.mask, _LEAST, _CONTEXT)
    before, after = shown(good[box], good[box]), shown(image[box], good[box])
    label = result.label[box].astype(np.uint8) * np.uint8(255)
    pictures = {
        "good": before,
        "result": after,
        "label": label,
        "difference": difference(good[box], image[box], GAIN),
    }
    return {
        "box": [x.start, y.start, x.stop - x.start, y.stop - y.start],
        "pictures": {key: _png(value) for key, value in pictures.items()},
        "fault": result.fault,
        "defect": result.defect,
        "figures": result.figures,
    }


def _png(image: Shown) -> str:
    return f"data:image/png;base64,{to_base64(resized(image, _SIDE))}"
