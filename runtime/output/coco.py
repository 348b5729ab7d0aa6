"""COCO: OUT/coco/instances_{train,val}.json, masks as run lengths: exact."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from ..files import write_whole
from ..images.reading import image_size
from ..images.types import Mask
from .records import FinishedDataset, KeptSample, read_finished
from .split import split

__all__ = ["run_lengths", "write_coco"]


def write_coco(out: Path) -> None:
    """Write COCO annotations; ``file_name`` starts from OUT. Good images have none."""
    folder = read_finished(out)
    categories = [
        {"id": i, "name": defect_type, "supercategory": "defect"}
        for i, defect_type in enumerate(folder.defect_types, 1)
    ]
    numbers = count(1)
    for part, entries in split(folder.entries).items():
        data = {
            "info": {"description": f"{folder.category}: made by defectrt"},
            "licenses": [],
            **_coco(folder, entries, numbers),
            "categories": categories,
        }
        text = json.dumps(data, separators=(",", ":"))
        write_whole(out / "coco" / f"instances_{part}.json", text.encode() + b"\n")


def _coco(
    folder: FinishedDataset, entries: Sequence[KeptSample], numbers: Iterator[int]
) -> dict[str, list[dict[str, Any]]]:
    """Images, the good ones first, and the annotations of the others.

    ``numbers`` are ids that no other image or annotation has, in this file or the other.
    """
    goods = {entry.good: image_size(folder.out / entry.label) for entry in entries}
    images = [_image(next(numbers), path, size) for path, size in sorted(goods.items())]
    annotations: list[dict[str, Any]] = []
    for entry in entries:
        image = _image(next(numbers), entry.image, image_size(folder.out / entry.label))
        images.append(image)
        annotations += [
            {"id": next(numbers), "image_id": image["id"], "category_id": place + 1}
            | _annotation(mask)
            for place, mask in folder.instances(entry)
        ]
    return {"images": images, "annotations": annotations}


def _image(number: int, path: str, size: tuple[int, ...]) -> dict[str, Any]:
    return {"id": number, "file_name": path, "height": size[0], "width": size[1]}


def run_lengths(mask: Mask) -> list[int]:
    """COCO's run lengths: down the columns, 0 and 1 in turn, beginning with 0."""
    flat = mask.ravel(order="F")
    ends = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(ends, prepend=0, append=flat.size)
    return [0, *runs.tolist()] if flat[0] else list(runs.tolist())


def _annotation(mask: Mask) -> dict[str, Any]:
    ys, xs = np.nonzero(mask)
    x, y = int(xs.min()), int(ys.min())
    return {
        "iscrowd": 0,
        "area": len(xs),
        "bbox": [x, y, int(xs.max()) - x + 1, int(ys.max()) - y + 1],
        "segmentation": {"size": list(mask.shape), "counts": run_lengths(mask)},
    }
