"""COCO: OUT/coco/instances_{train,val,test}.json, masks as polygons along the edges of px.

In OUT/coco-rle the same with run lengths.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from ..files import write_whole
from ..images.reading import image_size
from ..images.types import Mask
from .instances import pieces
from .outline import along_edges
from .records import FinishedDataset, read_finished
from .split import Side, read_splitting, split

__all__ = ["run_lengths", "write_coco", "write_coco_rle"]

#: What COCO calls a segmentation of a mask.
Segmentation: TypeAlias = Callable[[Mask], Any]


def write_coco(out: Path) -> None:
    """Write COCO annotations; ``file_name`` starts from OUT. Good images have none."""
    _write(out, "coco", _polygons)


def write_coco_rle(out: Path) -> None:
    """The same with run lengths, whatever a reader makes of holes in polygons."""
    _write(out, "coco-rle", _run_lengths)


def _write(out: Path, name: str, segmentation: Segmentation) -> None:
    folder = read_finished(out)
    categories = [
        {"id": i, "name": defect_type, "supercategory": "defect"}
        for i, defect_type in enumerate(folder.defect_types, 1)
    ]
    numbers = count(1)
    sides = split(folder.entries, read_splitting(out))
    for part, side in sides.items():
        data = {
            "info": {"description": f"{folder.category}: made by defectrt"},
            "licenses": [],
            **_coco(folder, side, numbers, segmentation),
            "categories": categories,
        }
        text = json.dumps(data, separators=(",", ":"))
        write_whole(out / name / f"instances_{part}.json", text.encode() + b"\n")
    if "test" not in sides:
        (out / name / "instances_test.json").unlink(missing_ok=True)


def _coco(
    folder: FinishedDataset, side: Side, numbers: Iterator[int], segmentation: Segmentation
) -> dict[str, list[dict[str, Any]]]:
    """Images, the good ones first, and the annotations of the others.

    ``numbers`` are ids that no other image or annotation has, in this file or the others.
    """
    goods = {path: image_size(folder.out / path) for path in side.goods}
    images = [_image(next(numbers), path, size) for path, size in goods.items()]
    annotations: list[dict[str, Any]] = []
    for entry in side.entries:
        image = _image(next(numbers), entry.image, image_size(folder.out / entry.label))
        images.append(image)
        annotations += [
            {"id": next(numbers), "image_id": image["id"], "category_id": place + 1}
            | _annotation(mask)
            | {"segmentation": segmentation(mask)}
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
    }


def _run_lengths(mask: Mask) -> dict[str, Any]:
    return {"size": list(mask.shape), "counts": run_lengths(mask)}


def _polygons(mask: Mask) -> list[list[int]]:
    """A polygon a piece; a hole is joined to its outside by a cut of no width."""
    return [along_edges(piece).ravel().tolist() for piece in pieces(mask)]
