"""Limit samples: one defect on one image, at graded sizes and strengths."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..config.engine import EngineConfig
from ..config.job import SynthesizerConfig
from ..config.series import SeriesConfig
from ..config.synthesis import Share
from ..errors import InputError, NothingDoneError, OutputError
from ..files import write_directory
from ..images.png import encode_png
from ..images.preview import Shown, enlarged
from ..images.reading import read_image
from ..images.types import Bits, Mask
from ..images.window import Window, place_window
from ..masks.bank import transplant
from ..masks.pieces import tight
from ..masks.placement import paste
from ..masks.reading import read_mask
from ..output.instances import as_levels
from .synthesizer import Synthesizer
from .workpiece import Result, Workpiece

__all__ = ["Grade", "series"]

#: Side of a cell of the sheet, the gap between cells, and the height of a caption, px.
_CELL, _GAP, _CAPTION = 160, 4, 18
#: Px around the largest defect that a cell shows.
_AROUND = 16


@dataclass(frozen=True)
class Grade:
    """One sample of a series, a line of ``series.csv``.

    size      longest side of what was asked for, px
    wanted    strength that was asked for
    strength  that it has; what cannot be reached is as near as can be
    area      of the label, px
    image     its file, and ``mask`` that of its label; "" if there is none
    fault     why there is none, if so
    """

    size: int
    wanted: float
    strength: float
    area: int
    image: str
    mask: str
    fault: str


def series(config: SeriesConfig | None = None, **options: Any) -> list[Grade]:
    """Make one defect on one image at every size and strength; writes the folder ``out``.

    ``options`` are those of the command line and of `SeriesConfig`, by the same names. The folder
    gets ``images``, ``masks`` of the labels, ``series.csv`` with a line a grade, and ``sheet.png``
    that shows all, a row a size. Place, shape and noise are the same in all grades. Returns the
    grades, by size and strength.

    Raises `InputError` for an image, a mask or sizes that cannot be used, `OutputError` for an
    ``out`` that is there already, `NothingDoneError` if the defect appears in no grade, and the
    errors of `Synthesizer`.
    """
    config = config.replace(**options) if config else SeriesConfig(**options)
    if config.out.exists():
        raise OutputError(f"{config.out}: already there; choose another --out")
    image = read_image(config.image)
    with Synthesizer(_made_with(config)) as synthesizer:
        if len(synthesizer.defect_types) > 1:
            raise InputError(f"--defect: one of {', '.join(synthesizer.defect_types)}")
        mask = _mask(config, image, synthesizer)
        masks = [_sized(mask, size) for size in config.sizes or (max(tight(mask).shape),)]
        if len({max(tight(sized).shape) for sized in masks}) < len(masks):
            raise InputError("--sizes: two of them are the same in px")
        grades: list[Grade] = []
        write_directory(config.out, partial(_write, config, image, masks, synthesizer, grades))
    return grades


def _made_with(config: SeriesConfig) -> SynthesizerConfig:
    """What makes the samples: one defect in each."""
    return SynthesizerConfig(
        **{name: getattr(config, name) for name in EngineConfig.model_fields},
        seed=config.seed,
        steps=config.steps,
        defect=(Share(config.defect),) if config.defect else (),
        instances=(1, 1),
    )


def _mask(config: SeriesConfig, image: Bits, synthesizer: Synthesizer) -> Mask:
    """The one that is given, or else what is drawn for the type."""
    if config.mask:
        return read_mask(config.mask, (image.shape[0], image.shape[1]))
    drawn = synthesizer(image, name=config.image.name)
    if not drawn.mask.any():
        raise InputError(f"{config.image}: {drawn.fault}")
    return drawn.mask


def _sized(mask: Mask, size: float) -> Mask:
    """A mask [H,W] scaled about its middle to a longest side, whole inside the image."""
    shape = tight(mask)
    scaled = transplant(shape, scale=size / max(shape.shape))
    ys, xs = np.nonzero(mask)
    corner = []
    for values, side, full in zip((ys, xs), scaled.shape, mask.shape, strict=True):
        if side > full:
            raise InputError(f"--sizes {size:g}: larger than the image")
        middle = (int(values.min()) + int(values.max()) + 1 - side) // 2
        corner.append(min(max(0, middle), full - side))
    return paste(scaled, (corner[0], corner[1]), (mask.shape[0], mask.shape[1]))


def _grade(mask: Mask, wanted: float, result: Result) -> Grade:
    size = max(tight(mask).shape)
    name = "" if result.fault else f"size-{size:04d}-strength-{wanted:g}.png"
    return Grade(
        size=size,
        wanted=wanted,
        strength=round(float(result.figures["strength"]), 4),
        area=int(result.label.sum()),
        image=name and f"images/{name}",
        mask=name and f"masks/{name}",
        fault=result.fault or "",
    )


def _write(
    config: SeriesConfig,
    image: Bits,
    masks: Sequence[Mask],
    synthesizer: Synthesizer,
    grades: list[Grade],
    out: Path,
) -> None:
    """Make the samples and write each as it comes; takes down the grades."""
    for folder in ("images", "masks"):
        (out / folder).mkdir()
    wanted = [(mask, strength) for mask in masks for strength in config.strengths]
    pieces = (Workpiece(image, m, config.image.name, strength=s) for m, s in wanted)
    window, cells = _window(masks), []
    for (mask, strength), result in zip(wanted, synthesizer.run(pieces), strict=True):
        grade = _grade(mask, strength, result)
        if grade.image:
            (out / grade.image).write_bytes(encode_png(result.image))
            (out / grade.mask).write_bytes(encode_png(as_levels([result.label])))
        cells.append(_cell(window, image, result, grade))
        grades.append(grade)
    if all(grade.fault for grade in grades):
        raise NothingDoneError(f"{config.image}: {grades[0].fault}, in every grade")
    table = csv.DictWriter(text := io.StringIO(), fieldnames=list(asdict(grades[0])))
    table.writeheader()
    table.writerows(map(asdict, grades))
    (out / "series.csv").write_text(text.getvalue(), encoding="utf-8")
    across = len(config.strengths)
    rows = [cells[i : i + across] for i in range(0, len(cells), across)]
    sheet = np.concatenate([np.concatenate(row, axis=1) for row in rows])
    (out / "sheet.png").write_bytes(encode_png(np.asarray(sheet, np.uint8)))


def _window(masks: Sequence[Mask]) -> Window:
    """What all cells of the sheet show."""
    largest = np.logical_or.reduce(masks)
    return place_window(largest, 2 * _AROUND + max(tight(largest).shape), _AROUND)


def _cell(window: Window, image: Bits, result: Result, grade: Grade) -> Shown:
    """A grade of the sheet, enlarged, its size and strength below it."""
    framed = np.full((_CELL + _CAPTION, _CELL + _GAP, 3), 255, np.uint8)
    framed[:_CELL, :_CELL] = enlarged(result.image, image, window, _CELL)
    said = f"{grade.size} px, " + ("nothing" if grade.fault else f"{grade.strength:.2f}")
    place, black = (_GAP, _CELL + _CAPTION - 5), (0, 0, 0)
    return np.asarray(
        cv2.putText(framed, said, place, cv2.FONT_HERSHEY_SIMPLEX, 0.4, black, 1, cv2.LINE_AA),
        np.uint8,
    )
