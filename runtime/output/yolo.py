"""YOLO-seg: OUT/yolo with data.yaml, images and polygons."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..config.yaml import write_yaml
from .outline import outline
from .records import FinishedDataset, KeptSample, read_finished
from .split import read_splitting, split
from .written import Content, copied, name_of, write_folder

__all__ = ["write_yolo"]


def write_yolo(out: Path) -> None:
    """Write YOLO-seg labels and put the images beside them; good images have an empty label.

    The format knows neither holes nor an object of several pieces: an outline runs there and
    back along a cut of no width. Nothing is written if nothing was kept. Files in the folder that
    this program did not write are left alone, see `write_folder`.
    """
    folder = read_finished(out)
    files: dict[str, Content] = {}
    sides = split(folder.entries, read_splitting(out))
    for side, found in sides.items():
        lines: dict[str, Content] = dict.fromkeys(found.goods, bytes)
        lines |= {entry.image: partial(_label, folder, entry) for entry in found.entries}
        for path, label in sorted(lines.items()):
            name = name_of(path)
            files[f"images/{side}/{name}.png"] = partial(copied, out / path)
            files[f"labels/{side}/{name}.txt"] = label
    if files:
        val = "images/val" if sides["val"].goods else "images/train"
        data: dict[str, Any] = {"train": "images/train", "val": val}
        data |= {"test": "images/test"} if "test" in sides else {}
        data["names"] = dict(enumerate(folder.defect_types))
        files["data.yaml"] = write_yaml(data).encode
    if files or (out / "yolo").is_dir():
        write_folder(out / "yolo", files)


def _label(folder: FinishedDataset, entry: KeptSample) -> bytes:
    return "".join(_yolo_lines(folder, entry)).encode()


def _yolo_lines(folder: FinishedDataset, entry: KeptSample) -> Iterator[str]:
    for category, mask in folder.instances(entry):
        # so far into the pixel that readers that cut and those that round find it
        points = (outline(mask) + 0.25) / mask.shape[::-1]
        if len(points) < 3:  # readers want three
            points = np.concatenate([points, np.repeat(points[-1:], 3 - len(points), axis=0)])
        yield f"{category} " + " ".join(f"{v:.7f}" for v in points.ravel()) + "\n"
