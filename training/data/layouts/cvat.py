"""CVAT's own XML, "CVAT for images 1.1"."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import PurePosixPath
from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray

from defectrt.errors import InputError
from defectrt.images.types import Mask

from .items import SUBSETS, Tree
from .notes import Mark, Note, annotated, holding, number, read_note, xml_of
from .shapes import Outline, Raster, Shape, Size, around, ellipse, from_run_lengths, placed

__all__ = ["CVAT"]

#: What says something of an image and marks nothing in it.
_NO_MARKS = frozenset({"tag"})
_PLACE = ("top", "left", "height", "width")


def _read(tree: Tree, files: Sequence[PurePosixPath]) -> Iterator[Note]:
    for file in files:
        root = xml_of(read_note(tree, file), tree.root / file)
        if root.find("track") is not None:
            raise InputError(
                f"{tree.root / file}: an export of a video; export it as 'CVAT for images 1.1'"
            )
        for image in root.iterfind("image"):
            note = Note(image.get("name", ""), file, subset=SUBSETS.get(_subset(image), ""))
            try:
                size = int(_number(image, "height")), int(_number(image, "width"))
                marks = [
                    Mark(s.get("label", ""), _shape(s)) for s in image if s.tag not in _NO_MARKS
                ]
                yield note.with_marks(marks, size)
            except InputError as fault:
                yield note.with_fault(str(fault))


def _subset(image: Element) -> str:
    return image.get("subset", "").lower()


def _shape(shape: Element) -> Shape:
    if shape.tag == "box":
        left, top, right, bottom = (_number(shape, key) for key in ("xtl", "ytl", "xbr", "ybr"))
        middle = (left + right) / 2, (top + bottom) / 2
        return around(left, top, right, bottom, middle, _number(shape, "rotation", "0"))
    if shape.tag == "polygon":
        pairs = [pair.split(",") for pair in shape.get("points", "").split(";")]
        points = [number(value, "points") for pair in pairs for value in pair]
        if len(pairs) < 3 or len(points) != 2 * len(pairs):
            raise InputError("a polygon has less than three points, or half of one")
        return Outline(np.array(points).reshape(-1, 2))
    if shape.tag == "ellipse":
        x, y, rx, ry = (_number(shape, key) for key in ("cx", "cy", "rx", "ry"))
        return Outline(ellipse(x, y, rx, ry, _number(shape, "rotation", "0")))
    if shape.tag == "mask":
        counts = [int(number(word, "rle")) for word in shape.get("rle", "").split(",")]
        top, left, height, width = (int(_number(shape, key)) for key in _PLACE)
        return Raster(partial(_placed, np.array(counts, np.int64), (top, left), (height, width)))
    raise InputError(
        f"a {shape.tag} has no area; mark it with a polygon, a box, an ellipse or a mask"
    )


def _placed(counts: NDArray[np.int64], at: Size, part: Size, size: Size) -> Mask:
    """Run lengths along the rows of a part of the image, whose top and left are ``at``."""
    if min(part) < 1 or any(own > whole for own, whole in zip(part, size, strict=True)):
        raise InputError("a mask leaves its image")
    return placed(from_run_lengths(counts, part, columns=False), at, size)


def _number(element: Element, key: str, default: str | None = None) -> float:
    return number(element.get(key, default), key)


CVAT = annotated(
    "cvat",
    "CVAT for images 1.1: annotations.xml with boxes, polygons, ellipses and masks",
    holding(".xml", b"<annotations", b"<image "),
    _read,
)
