"""Formats for other tools, each written from what is in the output folder alone.

OUT/folder.yaml                              for anomalib's Folder datamodule; always
OUT/coco/instances_{train,val}.json          COCO, masks as run lengths: exact
OUT/yolo/data.yaml                           YOLO-seg
OUT/yolo/images/{train,val}/<kind>_000.png   its pictures: hard links where the disk has them
OUT/yolo/labels/{train,val}/<kind>_000.txt   its polygons

All derive from one truth, the label PNG of a sample. An instance is what hangs together in it,
gaps of up to `MAX_GAP` px included: a scratch that fades here and there is one scratch.

The category of a kind is its place in the engine's list of kinds (see ``defectrt info``),
from 1 in COCO and from 0 in YOLO, whichever kinds a folder holds.

Bytes depend on the folder's samples only, not on when or in what order they were made.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeAlias, get_args

import cv2
import numpy as np

from ..errors import InputError, UsageError
from ..files import unwritable, write_whole
from ..pictures.images import Mask
from ..pictures.outline import outline
from .records import Entry, Folder, read_folder
from .report import write_report

__all__ = [
    "FORMATS",
    "MAX_GAP",
    "Format",
    "finish",
    "instances",
    "parse_formats",
    "run_lengths",
    "split",
    "write_coco",
    "write_folder_yaml",
    "write_yolo",
]

Format: TypeAlias = Literal["mvtec", "coco", "yolo"]
FORMATS: tuple[Format, ...] = get_args(Format)
#: px without label that an instance may bridge.
MAX_GAP = 8
#: Share of the source pictures whose samples are for validation.
_VAL_SHARE = 0.2


def parse_formats(text: str) -> list[Format]:
    """Formats from a list with commas. Raises `UsageError` for an unknown one, or none."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    known: list[Format] = [name for name in FORMATS if name in names]
    if not names or len(known) < len(set(names)):
        raise UsageError(f"format {text!r}: choose from {', '.join(FORMATS)}, with commas between")
    return known


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


def write_folder_yaml(out: Path) -> None:
    """Write ``folder.yaml`` for anomalib's Folder datamodule; none if nothing was kept.

    Its paths start from OUT, so that the folder can be moved.
    """
    folder = read_folder(out)
    if not folder.entries:
        return
    defects = sorted({entry.defect for entry in folder.entries})
    options = {
        "name": folder.category,
        "root": folder.category,
        "normal_dir": "train/good",
        "normal_test_dir": "test/good",
        "abnormal_dir": [f"test/{defect}" for defect in defects],
        "mask_dir": [f"ground_truth/{defect}" for defect in defects],
    }
    if not (out / folder.category / "test" / "good").is_dir():
        del options["normal_test_dir"]
    head = "# For anomalib, run in this folder: anomalib train --model Padim --data folder.yaml\n"
    data = {"class_path": "anomalib.data.Folder", "init_args": options}
    write_whole(out / "folder.yaml", (head + _yaml(data)).encode())


def write_coco(out: Path) -> None:
    """Write COCO annotations; ``file_name`` starts from OUT. Good pictures have none."""
    folder = read_folder(out)
    categories = [
        {"id": i, "name": kind, "supercategory": "defect"} for i, kind in enumerate(folder.kinds, 1)
    ]
    for part, entries in split(folder.entries).items():
        data = {
            "info": {"description": f"{folder.category}: made by defectrt"},
            "licenses": [],
            **_coco(folder, entries),
            "categories": categories,
        }
        text = json.dumps(data, separators=(",", ":"))
        write_whole(out / "coco" / f"instances_{part}.json", text.encode() + b"\n")


def _coco(folder: Folder, entries: Sequence[Entry]) -> dict[str, list[dict[str, Any]]]:
    """Images, the good ones first, and the annotations of the others."""
    goods = dict.fromkeys(sorted({entry.good for entry in entries}), (0, 0))
    samples: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, entry in enumerate(entries, len(goods) + 1):
        label = folder.label(entry)
        goods[entry.good] = label.shape
        samples.append(_image(image_id, entry.image, label.shape))
        head = {"image_id": image_id, "category_id": _category(folder, entry) + 1}
        for mask in instances(label):
            annotations.append({"id": len(annotations) + 1} | head | _annotation(mask))
    images = [_image(i, path, size) for i, (path, size) in enumerate(goods.items(), 1)]
    return {"images": images + samples, "annotations": annotations}


def _image(number: int, path: str, size: tuple[int, ...]) -> dict[str, Any]:
    return {"id": number, "file_name": path, "height": size[0], "width": size[1]}


def write_yolo(out: Path) -> None:
    """Write YOLO-seg labels and put the pictures beside them; good pictures have an empty label.

    The format knows neither holes nor an object of several pieces: an outline runs there and
    back along a cut of no width.
    """
    folder = read_folder(out)
    base = out / "yolo"
    _remove(base)  # with more samples, one may change sides
    for part, entries in split(folder.entries).items():
        texts = dict.fromkeys(sorted({entry.good for entry in entries}), "")
        texts |= {entry.image: "".join(_yolo_lines(folder, entry)) for entry in entries}
        for path, text in texts.items():
            name = "_".join(PurePosixPath(path).with_suffix("").parts[-2:])
            _link(out / path, base / "images" / part / f"{name}.png")
            write_whole(base / "labels" / part / f"{name}.txt", text.encode())
    names = dict(enumerate(folder.kinds))
    val = "images/val" if len(split(folder.entries)["val"]) else "images/train"
    data = {"train": "images/train", "val": val, "names": names}
    write_whole(base / "data.yaml", _yaml(data).encode())


_WRITERS: dict[Format, Callable[[Path], None]] = {"coco": write_coco, "yolo": write_yolo}


def split(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """Samples for training and validation; all samples of one source are on the same side.

    A fifth of the sources, chosen by the hashes of their names; at least one of two.
    """
    sources = sorted(
        {entry.source for entry in entries},
        key=lambda source: hashlib.sha256(source.encode()).digest(),
    )
    count = max(1, round(_VAL_SHARE * len(sources))) if len(sources) > 1 else 0
    val = set(sources[:count])
    return {
        "train": [entry for entry in entries if entry.source not in val],
        "val": [entry for entry in entries if entry.source in val],
    }


def instances(label: Mask) -> Iterator[Mask]:
    """The label's instances, each a mask [H,W]; together they are the label.

    Pieces with at most `MAX_GAP` px between them are one.
    """
    ys, xs = np.nonzero(label)
    if not len(ys):
        return
    box = slice(ys.min(), ys.max() + 1), slice(xs.min(), xs.max() + 1)
    reach = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (MAX_GAP + 1, MAX_GAP + 1))
    grown = cv2.dilate(label[box].astype(np.uint8), reach)
    count, groups = cv2.connectedComponents(grown, connectivity=8)
    for i in range(1, count):
        mask = np.zeros_like(label)
        mask[box] = label[box] & (groups == i)
        yield mask


def run_lengths(mask: Mask) -> list[int]:
    """COCO's run lengths: down the columns, 0 and 1 in turn, beginning with 0."""
    flat = mask.ravel(order="F")
    ends = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(ends, prepend=0, append=flat.size)
    return [0, *runs.tolist()] if flat[0] else list(runs.tolist())


def _category(folder: Folder, entry: Entry) -> int:
    if entry.defect not in folder.kinds:
        raise InputError(f"{folder.out}: {entry.image} is of a kind that its engine does not make")
    return folder.kinds.index(entry.defect)


def _annotation(mask: Mask) -> dict[str, Any]:
    ys, xs = np.nonzero(mask)
    x, y = int(xs.min()), int(ys.min())
    return {
        "iscrowd": 0,
        "area": len(xs),
        "bbox": [x, y, int(xs.max()) - x + 1, int(ys.max()) - y + 1],
        "segmentation": {"size": list(mask.shape), "counts": run_lengths(mask)},
    }


def _yolo_lines(folder: Folder, entry: Entry) -> Iterator[str]:
    category = _category(folder, entry)
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


def _yaml(data: dict[str, Any]) -> str:
    """YAML of a mapping of mappings; JSON in its leaves, which YAML reads as it is."""
    lines = []
    for key, value in data.items():
        if isinstance(value, dict):
            lines.append(f"{key}:\n")
            lines += [f"  {k}: {json.dumps(v, ensure_ascii=False)}\n" for k, v in value.items()]
        else:
            lines.append(f"{key}: {json.dumps(value, ensure_ascii=False)}\n")
    return "".join(lines)
