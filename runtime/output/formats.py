"""Formats for other tools, each written from what is in the output folder alone.

OUT/folder.yaml                              for anomalib's Folder datamodule; always
OUT/coco/instances_{train,val}.json          COCO, masks as run lengths: exact
OUT/yolo/data.yaml                           YOLO-seg
OUT/yolo/images/{train,val}/<type>_000.png   its images, copied
OUT/yolo/labels/{train,val}/<type>_000.txt   its polygons

All derive from one truth, the label PNG of a sample. An instance is what hangs together in it,
gaps of up to `MAX_GAP` px included: a scratch that fades here and there is one scratch. Where a
sample shows several types, its mask says which part of the label is of which.

The category of a defect type is its place in the engine's list (see ``defectrt info``), from 1 in
COCO and from 0 in YOLO, whichever types a folder holds.

Bytes depend on the folder's samples only, not on when or in what order they were made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ..config.job import Format
from .anomalib import write_folder_yaml
from .coco import write_coco
from .report import write_report
from .written import WRITTEN
from .yolo import write_yolo

__all__ = ["finish", "written_formats"]

_WRITERS: dict[Format, Callable[[Path], None]] = {"coco": write_coco, "yolo": write_yolo}


def written_formats(out: Path) -> tuple[Format, ...]:
    """The formats that a finished folder is written in already."""
    files: dict[Format, Path] = {"coco": out / "coco", "yolo": out / "yolo" / WRITTEN}
    return ("mvtec", *(name for name, path in files.items() if path.exists()))


def finish(out: str | Path, formats: Sequence[Format] = ("mvtec",)) -> None:
    """Write all that is made from a finished folder: ``folder.yaml``, the report, ``formats``.

    The MVTec AD layout is the folder itself.

    Raises `InputError` if the folder is not a job's, and `OutputError` if it cannot be written.
    """
    out = Path(out)
    write_folder_yaml(out)
    write_report(out)
    for name in formats:
        if name in _WRITERS:
            _WRITERS[name](out)
