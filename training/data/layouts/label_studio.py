"""Label Studio's JSON export (not JSON-MIN)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from defectrt.errors import InputError
from defectrt.images.types import Mask

from .items import Tree
from .notes import Loose, Mark, Note, annotated, holding, parse, pictures, read_note
from .shapes import Outline, Raster, Shape, Size, around, ellipse, picture_in

__all__ = ["LABEL_STUDIO"]

#: What an upload puts before the name of a file.
_UPLOADED = re.compile(r"^[0-9a-f]{8}-")
#: Results that mark a part of the image, and what the list of labels in them is called.
_MARKING = re.compile(r"^(rectangle|polygon|brush|ellipse|bitmask|keypoint|vector)?labels$")


class _Result(Loose):
    type: str = ""
    value: dict[str, Any] = Field(default_factory=dict)
    original_width: int | None = None
    original_height: int | None = None


class _Annotation(Loose):
    result: tuple[_Result, ...] = ()
    was_cancelled: bool = False
    ground_truth: bool = False


class _Task(Loose):
    data: dict[str, Any]
    annotations: tuple[_Annotation, ...] = ()


def _read(tree: Tree, files: Sequence[PurePosixPath]) -> Iterator[Note]:
    here = {image.name for image in pictures(tree)}
    for file in files:
        for task in parse(list[_Task], read_note(tree, file), tree.root / file):
            done = [a for a in task.annotations if not a.was_cancelled]
            done = [a for a in done if a.ground_truth] or done
            if done:
                yield _note(Note(_image(task, here), file), done)


def _note(note: Note, done: list[_Annotation]) -> Note:
    if len(done) > 1:
        return note.with_fault(f"annotated {len(done)} times; mark one as ground truth")
    found = [r for r in done[0].result if _MARKING.match(r.type)]
    try:
        sizes = {(r.original_height, r.original_width) for r in found} or {(None, None)}
        if len(sizes) > 1:
            raise InputError("its results are of images of several sizes")
        height, width = sizes.pop()
        if found and not (height and width and height > 0 and width > 0):
            raise InputError("a result does not say how large its image is")
        size = (height, width) if height and width else None
        return note.with_marks([_mark(r, size or (1, 1)) for r in found], size)
    except InputError as fault:
        return note.with_fault(str(fault))
    except (KeyError, TypeError, ValueError) as error:
        return note.with_fault(f"a result that cannot be read ({error!r})")


def _image(task: _Task, here: set[str]) -> str:
    """The name in a task's address of an image: a path, an upload's, or a local file's."""
    texts = [str(v) for v in (task.data.get("image"), *task.data.values()) if isinstance(v, str)]
    parts = urlsplit(texts[0] if texts else "")
    path = PurePosixPath(*parse_qs(parts.query).get("d", [unquote(parts.path)]))
    without = _UPLOADED.sub("", path.name)
    return without if path.name not in here and without in here else str(path)


def _mark(result: _Result, size: Size) -> Mark:
    value = result.value
    labels = value.get(result.type) or value.get("labels") or []
    if len(labels) != 1:
        raise InputError(f"a region has the labels {labels}, and should have one")
    return Mark(str(labels[0]), _shape(value, size))


def _shape(value: dict[str, Any], size: Size) -> Shape:
    """Places are percents of width and height."""
    scale = np.array([size[1], size[0]]) / 100
    if "points" in value:
        points = np.array(value["points"], float)
        if points.ndim != 2 or points.shape[1] != 2 or len(points) < 3:
            raise InputError("a polygon has less than three points")
        return Outline(points * scale)
    if "rle" in value:
        return Raster(partial(_brushed, value["rle"]))
    if "imageDataURL" in value:
        return Raster(partial(_pictured, str(value["imageDataURL"])))
    turned = float(value.get("rotation", 0))
    if "radiusX" in value:
        x, y = np.array([value["x"], value["y"]], float) * scale
        rx, ry = np.array([value["radiusX"], value["radiusY"]], float) * scale
        return Outline(ellipse(x, y, rx, ry, turned))
    if "height" in value:
        left, top = np.array([value["x"], value["y"]], float) * scale
        width, height = np.array([value["width"], value["height"]], float) * scale
        return around(left, top, left + width, top + height, (left, top), turned)
    raise InputError("a region has no area; mark it with a polygon, a box, an ellipse or a brush")


def _pictured(url: str, size: Size) -> Mask:
    mask = picture_in(url.partition("base64,")[2])
    if mask.shape != size:
        raise InputError("a mask has another size than its image")
    return mask


def _brushed(data: list[int], size: Size) -> Mask:
    """Any transparency of what was brushed."""
    opacity = _unpacked(data, size[0] * size[1] * 4)[3::4]
    return np.asarray(opacity.reshape(size) > 0)


def _unpacked(data: list[int], most: int) -> NDArray[np.uint8]:
    """Bytes from the brush's runs, a stream of bits: @thi.ng/rle-pack.

    32 bits how many, 5 bits a word's width less one, four times 4 bits the widths of counts less
    one. A run is a bit, whether one word is repeated, 2 bits which width its count has, the count
    less one, and that word or those words.
    """
    try:
        bits = np.unpackbits(np.array(data, np.uint8))
    except (TypeError, ValueError, OverflowError):
        raise InputError("a brush is not a list of bytes") from None
    place = 0

    def take(width: int) -> int:
        nonlocal place
        if place + width > len(bits):
            raise InputError("a brush ends too early")
        place += width
        return int("".join(map(str, bits[place - width : place])), 2)

    count, width = take(32), take(5) + 1
    widths = [take(4) + 1 for _ in range(4)]
    if width != 8 or count != most:
        raise InputError("a brush was not made for its image")
    values = np.zeros(count, np.uint8)
    done = 0
    while done < count:
        repeated, size = take(1), widths[take(2)]
        length = take(size) + 1
        if done + length > count:
            raise InputError("a brush has more px than its image")
        if repeated:
            values[done : done + length] = take(8)
        elif place + 8 * length > len(bits):
            raise InputError("a brush ends too early")
        else:
            values[done : done + length] = np.packbits(bits[place : place + 8 * length])
            place += 8 * length
        done += length
    return values


LABEL_STUDIO = annotated(
    "label-studio",
    "Label Studio: its JSON export (not JSON-MIN), beside the images",
    holding(".json", b'"annotations"', b'"result"', b'"data"'),
    _read,
)
