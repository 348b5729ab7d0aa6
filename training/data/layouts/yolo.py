"""YOLO and YOLO-seg: a text a picture, its numbers shares of width and height."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from defectrt.config.yaml import read_yaml
from defectrt.errors import InputError
from defectrt.files import read_input

from .items import Tree
from .notes import Mark, Note, annotated, nearest, pictures
from .shapes import Box, Outline, Shape

__all__ = ["YOLO", "read_lines"]

#: Files that say what the classes are called.
_YAML, _LISTS = (".yaml", ".yml"), ("classes.txt", "obj.names", "_darknet.labels")
_LONGEST = 1 << 24


def read_lines(path: Path) -> list[tuple[int, Shape]]:
    """Class and shape of every line: a box of four numbers, or the points of a polygon.

    Raises `InputError` naming the line that is neither.
    """
    try:
        lines = read_input(path, _LONGEST).decode().splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text in YOLO's format") from None
    return [_shape(line, f"{path}: line {n}") for n, line in enumerate(lines, 1) if line.strip()]


def _shape(line: str, where: str) -> tuple[int, Shape]:
    try:
        number, *rest = line.split()
        name, values = int(number), np.array([float(word) for word in rest])
    except ValueError:
        values = np.empty(0)
    if len(values) < 4 or (len(values) > 4 and (len(values) < 6 or len(values) % 2)):
        raise InputError(
            f"{where}: expected 'class x y width height' or 'class x1 y1 x2 y2 x3 y3 …'"
        )
    if not ((values >= 0) & (values <= 1)).all():
        raise InputError(f"{where}: all numbers are shares of the image, 0 to 1")
    if len(values) > 4:
        return name, Outline(values.reshape(-1, 2), shares=True, drawn=True)
    x, y, w, h = values.tolist()
    if not w or not h:
        raise InputError(f"{where}: a box has no width or no height")
    return name, Box(x - w / 2, y - h / 2, x + w / 2, y + h / 2, shares=True)


def _read(tree: Tree, files: Sequence[PurePosixPath]) -> Iterator[Note]:
    """An image without a text is a good one, as ultralytics has it."""
    names = _names(tree)
    said = set()
    for file in files:
        image = nearest(tree, file) or file.with_suffix(".jpg")
        said.add(image)
        try:
            lines = read_lines(tree.root / file)
            yield Note(str(image), file, tuple(Mark(_name(names, n), s) for n, s in lines))
        except InputError as fault:
            yield Note(str(image), file, fault=str(fault).removeprefix(f"{tree.root / file}: "))
    yield from (Note(str(image), image) for image in pictures(tree) if image not in said)


def _name(names: dict[int, str], number: int) -> str:
    if number not in names:
        raise InputError(f"class {number} has no name")
    return names[number]


def _labels(tree: Tree) -> list[PurePosixPath]:
    """The texts of images, if there is something that names their classes."""
    if not any(_is_list(file) for file in tree.others):
        return []
    texts = [f for f in tree.others if f.suffix == ".txt" and not _is_list(f)]
    return [f for f in texts if "labels" in f.parts[:-1] or nearest(tree, f)]


def _is_list(file: PurePosixPath) -> bool:
    return len(file.parts) <= 2 and (file.suffix in _YAML or file.name in _LISTS)


def _names(tree: Tree) -> dict[int, str]:
    for file in filter(_is_list, sorted(tree.others, key=lambda f: (len(f.parts), f))):
        if file.suffix in _YAML:
            names = _names_in(tree.root / file)
        else:
            text = read_input(tree.root / file, _LONGEST).decode("utf-8", "replace")
            names = dict(enumerate(text.splitlines()))
        if names:
            return names
    raise InputError(f"{tree.root}: no data.yaml with names, and no classes.txt")


def _names_in(path: Path) -> dict[int, str]:
    names = read_yaml(path).get("names")
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict):
        return {}
    if not all(isinstance(n, int) and isinstance(name, str) for n, name in names.items()):
        raise InputError(f"{path}: names should be a list of names, or numbers with names")
    return names


YOLO = annotated(
    "yolo",
    "YOLO, YOLO-seg: data.yaml or classes.txt, images, and labels/… or beside them name.txt",
    _labels,
    _read,
)
