"""Pascal VOC: an XML a picture, its defects in boxes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from xml.etree.ElementTree import Element

from defectrt.errors import InputError

from .items import Tree
from .notes import Mark, Note, annotated, holding, nearest, number, read_note, xml_of
from .shapes import Box, Size

__all__ = ["VOC"]


def _read(tree: Tree, files: Sequence[PurePosixPath]) -> Iterator[Note]:
    for file in files:
        root = xml_of(read_note(tree, file), tree.root / file)
        image = str(nearest(tree, file) or root.findtext("filename") or file.stem)
        try:
            marks = tuple(_mark(found) for found in root.iterfind("object"))
            yield Note(image, file, marks, _size(root))
        except InputError as fault:
            yield Note(image, file, fault=str(fault))


def _size(root: Element) -> Size | None:
    size = root.find("size")
    if size is None:
        return None
    height, width = (int(number(size.findtext(side), side)) for side in ("height", "width"))
    return (height, width) if height and width else None


def _mark(found: Element) -> Mark:
    """Px are counted from 1, and the last ones belong to the box."""
    box, label = found.find("bndbox"), found.findtext("name") or ""
    if box is None:
        raise InputError(f"an object {label!r} has no bndbox")
    left, top, right, bottom = (
        number(box.findtext(side), side) for side in ("xmin", "ymin", "xmax", "ymax")
    )
    return Mark(label, Box(left - 1, top - 1, right, bottom))


VOC = annotated(
    "voc",
    "Pascal VOC: name.xml with boxes, in Annotations beside JPEGImages or beside its image",
    holding(".xml", b"<annotation>"),
    _read,
)
