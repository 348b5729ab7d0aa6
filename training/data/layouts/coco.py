"""COCO's JSON: polygons, run lengths as numbers or text, and boxes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from defectrt.errors import InputError
from defectrt.images.types import Mask

from .items import SUBSETS, Tree
from .notes import Loose, Mark, Note, annotated, holding, parse, read_note
from .shapes import Box, Outline, Raster, Size, from_run_lengths, run_lengths_of

__all__ = ["COCO"]


class _Image(Loose):
    id: int | str
    file_name: str
    height: int | None = None
    width: int | None = None


class _RunLengths(Loose):
    size: tuple[int, int]
    counts: str | list[int]


class _Annotation(Loose):
    image_id: int | str
    category_id: int
    bbox: tuple[float, float, float, float] | tuple[()] = ()
    segmentation: _RunLengths | list[list[float]] | None = None


class _Category(Loose):
    id: int
    name: str


class _File(Loose):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


def _read(tree: Tree, files: Sequence[PurePosixPath]) -> Iterator[Note]:
    for file in files:
        data = parse(_File, read_note(tree, file), tree.root / file)
        names = {category.id: category.name for category in data.categories}
        of_image = defaultdict(list)
        for annotation in data.annotations:
            of_image[annotation.image_id].append(annotation)
        if lost := sorted(of_image.keys() - {image.id for image in data.images}, key=str):
            raise InputError(f"{tree.root / file}: annotations of image {lost[0]}, which it lacks")
        for image in data.images:
            note = Note(image.file_name, file, size=_size(image), subset=_subset(file))
            try:
                marks = [_mark(a, names) for a in of_image[image.id]]
                yield note.with_marks(marks)
            except InputError as fault:
                yield note.with_fault(str(fault))


def _size(image: _Image) -> Size | None:
    return (image.height, image.width) if image.height and image.width else None


def _subset(file: PurePosixPath) -> str:
    """Of the file's own name, as in instances_val2017.json, or of its folder's."""
    words = [*file.parts[:-1], *file.stem.lower().replace("2017", "").split("_")]
    return next((SUBSETS[word] for word in words if word in SUBSETS), "")


def _mark(annotation: _Annotation, names: dict[int, str]) -> Mark:
    if annotation.category_id not in names:
        raise InputError(f"category {annotation.category_id} is not among the categories")
    label, drawn = names[annotation.category_id], annotation.segmentation
    if isinstance(drawn, _RunLengths):
        return Mark(label, Raster(partial(_decoded, drawn)))
    if drawn:
        return Mark(label, Raster(partial(_painted, [_polygon(points) for points in drawn])))
    if annotation.bbox:
        x, y, width, height = annotation.bbox
        return Mark(label, Box(x, y, x + width, y + height))
    raise InputError("an annotation has neither a segmentation nor a box")


def _polygon(points: list[float]) -> Outline:
    if len(points) < 6 or len(points) % 2:
        raise InputError("a polygon has less than three points, or half of one")
    return Outline(np.array(points).reshape(-1, 2))


def _painted(outlines: list[Outline], size: Size) -> Mask:
    return np.asarray(np.logical_or.reduce([outline.paint(size) for outline in outlines]))


def _decoded(runs: _RunLengths, size: Size) -> Mask:
    if runs.size != size:
        raise InputError(f"run lengths of {runs.size[1]}x{runs.size[0]}, {_image(size)}")
    counts: Any = runs.counts
    counts = run_lengths_of(counts) if isinstance(counts, str) else np.array(counts, np.int64)
    return from_run_lengths(counts, size, columns=True)


def _image(size: Size) -> str:
    return f"and the image is {size[1]}x{size[0]}"


def _found(tree: Tree) -> Sequence[PurePosixPath]:
    """COCO's own folder has other tasks beside the instances: panoptic, stuff, captions."""
    files = _like_coco(tree)
    return [file for file in files if file.stem.startswith("instances")] or files


_like_coco = holding(".json", b'"images"', b'"annotations"', b'"categories"')
COCO = annotated(
    "coco",
    "COCO: a .json with images, annotations (polygons, run lengths, boxes) and categories",
    _found,
    _read,
)
