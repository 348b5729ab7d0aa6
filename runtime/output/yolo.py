"""YOLO-seg: OUT/yolo with data.yaml, images and polygons."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from ..config.yaml import write_yaml
from ..files import read_file
from ..images.reading import MAX_BYTES
from .outline import outline
from .records import FinishedDataset, KeptSample, read_finished
from .split import split
from .written import Content, write_folder

__all__ = ["write_yolo"]


def write_yolo(out: Path) -> None:
    """Write YOLO-seg labels and put the images beside them; good images have an empty label.

    The format knows neither holes nor an object of several pieces: an outline runs there and
    back along a cut of no width. Nothing is written if nothing was kept. Files in the folder that
    this program did not write are left alone, see `write_folder`.
    """
    folder = read_finished(out)
    files: dict[str, Content] = {}
    sides = split(folder.entries)
    for side, entries in sides.items():
        lines: dict[str, Content] = {entry.good: bytes for entry in entries}
        lines |= {entry.image: partial(_label, folder, entry) for entry in entries}
        for path, label in sorted(lines.items()):
            name = "_".join(PurePosixPath(path).with_suffix("").parts[-2:])
            files[f"images/{side}/{name}.png"] = partial(_copy, out / path)
            files[f"labels/{side}/{name}.txt"] = label
    if files:
        val = "images/val" if sides["val"] else "images/train"
        names = dict(enumerate(folder.defect_types))
        data = {"train": "images/train", "val": val, "names": names}
        files["data.yaml"] = write_yaml(data).encode
    if files or (out / "yolo").is_dir():
        write_folder(out / "yolo", files)


def _copy(path: Path) -> bytes:
    """A copy, and no link: who changes the one shall not change the other."""
    return read_file(path, MAX_BYTES)


def _label(folder: FinishedDataset, entry: KeptSample) -> bytes:
    return "".join(_yolo_lines(folder, entry)).encode()


def _yolo_lines(folder: FinishedDataset, entry: KeptSample) -> Iterator[str]:
    for category, mask in folder.instances(entry):
        # so far into the pixel that readers that cut and those that round find it
        points = (outline(mask) + 0.25) / mask.shape[::-1]
        if len(points) < 3:  # readers want three
            points = np.concatenate([points, np.repeat(points[-1:], 3 - len(points), axis=0)])
        yield f"{category} " + " ".join(f"{v:.7f}" for v in points.ravel()) + "\n"
