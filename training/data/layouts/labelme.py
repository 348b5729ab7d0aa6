"""LabelMe: a JSON a picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import PurePosixPath

import numpy as np

from defectrt.errors import InputError
from defectrt.images.types import Mask

from .items import Tree
from .notes import Loose, Mark, Note, annotated, holding, nearest, parse, read_note
from .shapes import Box, Outline, Raster, Shape, Size, ellipse, picture_in, placed

__all__ = ["LABELME"]


class _Shape(Loose):
    label: str
    points: list[tuple[float, float]]
    shape_type: str | None = None
    mask: str | None = None


class _File(Loose):
    shapes: list[_Shape]
    imagePath: str  # noqa: N815 - the file's own name for it
    imageHeight: int | None = None  # noqa: N815
    imageWidth: int | None = None  # noqa: N815


def _read(tree: Tree, files: Sequence[PurePosixPath]) -> Iterator[Note]:
    for file in files:
        said = parse(_File, read_note(tree, file), tree.root / file)
        height, width = said.imageHeight, said.imageWidth
        size = (height, width) if height and width else None
        note = Note(str(nearest(tree, file) or said.imagePath), file, size=size)
        try:
            yield note.with_marks([Mark(shape.label, _shape(shape)) for shape in said.shapes])
        except InputError as fault:
            yield note.with_fault(str(fault))


def _shape(shape: _Shape) -> Shape:
    kind, points = shape.shape_type or "polygon", np.array(shape.points, float).reshape(-1, 2)
    if kind == "polygon" and len(points) >= 3:
        return Outline(points, drawn=True)
    if len(points) == 2:
        (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
        if kind == "rectangle":
            return Box(left, top, right, bottom)
        if kind == "circle":
            radius = float(np.hypot(*(points[1] - points[0])))
            return Outline(ellipse(points[0, 0], points[0, 1], radius, radius))
        if kind == "mask" and shape.mask:
            return Raster(partial(_placed, shape.mask, int(left), int(top)))
    raise InputError(
        f"the {kind} {shape.label!r} of {len(points)} points has no area; mark it with a "
        "polygon, a rectangle, a circle or a mask"
    )


def _placed(coded: str, left: int, top: int, size: Size) -> Mask:
    return placed(picture_in(coded), (top, left), size)


LABELME = annotated(
    "labelme",
    "LabelMe: name.json with shapes, beside its image or in another folder",
    holding(".json", b'"shapes"', b'"imagePath"'),
    _read,
)
