"""YOLO-seg: OUT/yolo with data.yaml, images and polygons."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from ..config.yaml import write_yaml
from ..files import unwritable, write_whole
from .instances import instances
from .outline import outline
from .records import FinishedDataset, KeptSample, read_finished
from .split import split

__all__ = ["write_yolo"]


def write_yolo(out: Path) -> None:
    """Write YOLO-seg labels and put the images beside them; good images have an empty label.

    The format knows neither holes nor an object of several pieces: an outline runs there and
    back along a cut of no width.
    """
    folder = read_finished(out)
    base = out / "yolo"
    _remove(base)  # with more samples, one may change sides
    for part, entries in split(folder.entries).items():
        texts = dict.fromkeys(sorted({entry.good for entry in entries}), "")
        texts |= {entry.image: "".join(_yolo_lines(folder, entry)) for entry in entries}
        for path, text in texts.items():
            name = "_".join(PurePosixPath(path).with_suffix("").parts[-2:])
            _link(out / path, base / "images" / part / f"{name}.png")
            write_whole(base / "labels" / part / f"{name}.txt", text.encode())
    names = dict(enumerate(folder.defect_types))
    val = "images/val" if len(split(folder.entries)["val"]) else "images/train"
    data = {"train": "images/train", "val": val, "names": names}
    write_whole(base / "data.yaml", write_yaml(data).encode())


def _yolo_lines(folder: FinishedDataset, entry: KeptSample) -> Iterator[str]:
    category = folder.index_of_type(entry)
    for mask in instances(folder.label(entry)):
        # so far into the pixel that readers that cut and those that round find it
        points = (outline(mask) + 0.25) / mask.shape[::-1]
        if len(points) < 3:  # readers want three
            points = np.concatenate([points, np.repeat(points[-1:], 3 - len(points), axis=0)])
        yield f"{category} " + " ".join(f"{v:.7f}" for v in points.ravel()) + "\n"


def _link(source: Path, target: Path) -> None:
    """The same file under another name; a copy where the disk has no hard links."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        try:
            os.link(source, target)
        except OSError:
            shutil.copyfile(source, target)
    except OSError as error:
        raise unwritable(target, error) from error


def _remove(folder: Path) -> None:
    try:
        if folder.exists():
            shutil.rmtree(folder)
    except OSError as error:
        raise unwritable(folder, error) from error
