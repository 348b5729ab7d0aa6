"""Figure 3: the same target masks on the same pictures, and what each method made under them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from defectrt.files import write_whole
from defectrt.images.png import encode_png
from defectrt.images.preview import Shown, enlarged
from defectrt.images.reading import read_image
from defectrt.images.types import Bits, Mask
from defectrt.images.window import Window, place_window
from defectrt.masks.reading import read_any_mask
from defectrt.output.records import FinishedDataset, KeptSample, read_finished

#: Rows a type; px of a cell, and of the least that is shown around a mask.
ROWS, SIDE, AROUND = 4, 160, 64
MASK, LABEL = (0, 140, 255), (255, 64, 0)


def write_sheet(made: Sequence[Path], out: Path) -> None:
    """A PNG: the good picture, its mask, then of each set the result and its label outlined.

    The first samples of each type that every set has kept, with the same mask.
    """
    sets = [read_finished(folder) for folder in made]
    kept = [{_key(entry): entry for entry in dataset.entries} for dataset in sets]
    rows = []
    for name in sorted({entry.defect for entry in kept[0].values()}):
        alike = [key for key in kept[0] if key[0] == name and _is_in_all(key, sets, kept)]
        rows += [_row(key, sets, kept) for key in sorted(alike)[:ROWS]]
    write_whole(out, encode_png(np.vstack(rows)))


def _key(entry: KeptSample) -> tuple[str, str, int]:
    return entry.defect, entry.source, int(entry.record.get("sample", 0))


def _is_in_all(
    key: tuple[str, str, int],
    sets: Sequence[FinishedDataset],
    kept: Sequence[dict[tuple[str, str, int], KeptSample]],
) -> bool:
    if not all(key in entries for entries in kept):
        return False
    first, *others = (
        read_any_mask(dataset.out / str(entries[key].mask))
        for dataset, entries in zip(sets, kept, strict=True)
    )
    return all(np.array_equal(first, other) for other in others)


def _row(
    key: tuple[str, str, int],
    sets: Sequence[FinishedDataset],
    kept: Sequence[dict[tuple[str, str, int], KeptSample]],
) -> Shown:
    own, first = kept[0][key], sets[0]
    good = read_image(first.out / own.good)
    mask = read_any_mask(first.out / str(own.mask))
    window = place_window(mask, AROUND, 8)
    cells = [_cell(good, good, window), _cell(good, good, window, mask, MASK)]
    for dataset, entries in zip(sets, kept, strict=True):
        image = read_image(dataset.out / entries[key].image)
        label = dataset.label(entries[key])
        cells += [_cell(image, good, window), _cell(image, good, window, label, LABEL)]
    return np.hstack(cells)


def _cell(
    image: Bits,
    good: Bits,
    window: Window,
    label: Mask | None = None,
    colour: tuple[int, int, int] = MASK,
) -> Shown:
    """[S,S,3]: what is seen around a mask, with the outline of a label."""
    seen = enlarged(image, good, window, SIDE).copy()
    if label is not None:
        part = window.crop(label.astype(np.uint8))
        large = cv2.resize(part, (SIDE, SIDE), interpolation=cv2.INTER_NEAREST)
        seen[(large > 0) & (cv2.erode(large, np.ones((3, 3), np.uint8)) == 0)] = colour
    seen[:, -2:] = seen[-2:] = 255
    return seen
