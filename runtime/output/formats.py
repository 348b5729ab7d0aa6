"""Formats for other tools, each written from what is in the output folder alone.

OUT/folder.yaml                              for anomalib's Folder datamodule; always
OUT/coco/instances_{train,val}.json          COCO, masks as polygons
OUT/coco-rle/instances_{train,val}.json      COCO, masks as run lengths
OUT/yolo/data.yaml                           YOLO-seg
OUT/yolo/images/{train,val}/<type>_000.png   its images, copied
OUT/yolo/labels/{train,val}/<type>_000.txt   its polygons
OUT/labelme/<type>_000.{json,png}            LabelMe, the images copied
OUT/label-studio/tasks.json                  Label Studio, and the interface to import it into
OUT/imagefolder/{train,validation}/          Hugging Face datasets, the images copied

All derive from one truth, the label PNG of a sample. An instance is what hangs together in it,
gaps of up to `MAX_GAP` px included: a scratch that fades here and there is one scratch. Where a
sample shows several types, its mask says which part of the label is of which.

The category of a defect type is its place in the engine's list (see ``defectrt info``), from 1 in
COCO and from 0 in YOLO, whichever types a folder holds. Which side a sample is on, `split` says.

Bytes depend on the folder's samples only, not on when or in what order they were made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ..config.job import Format, FormatConfig
from .anomalib import write_folder_yaml
from .coco import write_coco, write_coco_rle
from .imagefolder import write_imagefolder
from .label_studio import write_label_studio
from .labelme import write_labelme
from .report import write_report
from .split import Splitting, read_splitting, write_splitting
from .written import WRITTEN
from .yolo import write_yolo

__all__ = ["finish", "splitting_of", "written_formats"]

#: Of every format that is no part of the folder itself, what writes it and what is there then.
_WRITERS: dict[Format, tuple[Callable[[Path], None], str]] = {
    "coco": (write_coco, "coco"),
    "coco-rle": (write_coco_rle, "coco-rle"),
    "yolo": (write_yolo, f"yolo/{WRITTEN}"),
    "labelme": (write_labelme, f"labelme/{WRITTEN}"),
    "label-studio": (write_label_studio, "label-studio"),
    "imagefolder": (write_imagefolder, f"imagefolder/{WRITTEN}"),
}


def splitting_of(config: FormatConfig) -> Splitting:
    """How a configuration splits the formats."""
    return Splitting(config.workpiece, config.test_share, config.synthetic_test)


def written_formats(out: Path) -> tuple[Format, ...]:
    """The formats that a finished folder is written in already."""
    return ("mvtec", *(name for name, (_, path) in _WRITERS.items() if (out / path).exists()))


def finish(
    out: str | Path, formats: Sequence[Format] = ("mvtec",), *, splitting: Splitting | None = None
) -> None:
    """Write all that is made from a finished folder: ``folder.yaml``, the report, ``formats``.

    The MVTec AD layout is the folder itself. ``splitting`` is kept in the folder; another one than
    before, and what is written already is written anew.

    Raises `InputError` if the folder is not a job's, and `OutputError` if it cannot be written.
    """
    out = Path(out)
    write_folder_yaml(out)
    write_report(out)
    if splitting is not None and splitting != read_splitting(out):
        formats = tuple(dict.fromkeys((*written_formats(out), *formats)))
        write_splitting(out, splitting)
    for name in formats:
        if name in _WRITERS:
            _WRITERS[name][0](out)
