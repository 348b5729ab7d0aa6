"""LabelMe: OUT/labelme, every image with a defect beside its polygons, to be corrected."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

from .instances import pieces
from .outline import outline
from .records import FinishedDataset, KeptSample, read_finished
from .written import Content, copied, name_of, write_folder

__all__ = ["write_labelme"]


def write_labelme(out: Path) -> None:
    """Write a JSON and a copy of its image for every sample; no good images.

    A polygon a piece, through the border px as LabelMe draws it; the pieces of an instance are a
    group. Files that this program did not write are left alone, see `write_folder`.
    """
    folder = read_finished(out)
    files: dict[str, Content] = {}
    for entry in folder.entries:
        name = name_of(entry.image)
        files[f"{name}.png"] = partial(copied, out / entry.image)
        files[f"{name}.json"] = partial(_annotated, folder, entry, f"{name}.png")
    if files or (out / "labelme").is_dir():
        write_folder(out / "labelme", files)


def _annotated(folder: FinishedDataset, entry: KeptSample, name: str) -> bytes:
    height, width = folder.label(entry).shape
    shapes = [
        _shape(folder.defect_types[place], _three(outline(piece).tolist()), number)
        for number, (place, mask) in enumerate(folder.instances(entry), 1)
        for piece in pieces(mask)
    ]
    data: dict[str, Any] = {"version": "6.0.0", "flags": {}, "shapes": shapes, "imagePath": name}
    data |= {"imageData": None, "imageHeight": height, "imageWidth": width}
    return json.dumps(data, indent=1).encode() + b"\n"


def _three(points: list[list[int]]) -> list[list[int]]:
    """Of a px or a line, as many points as a polygon needs."""
    return points + [points[-1]] * (3 - len(points))


def _shape(label: str, points: list[list[int]], number: int) -> dict[str, Any]:
    shape = {"label": label, "points": points, "group_id": number, "description": ""}
    return shape | {"shape_type": "polygon", "flags": {}, "mask": None}
