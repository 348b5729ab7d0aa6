"""What files of annotations say of images, and the items that follow from it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import takewhile
from pathlib import PurePosixPath
from typing import TypeVar
from xml.etree import ElementTree

from pydantic import BaseModel, TypeAdapter, ValidationError

from defectrt.config.names import is_folder_name
from defectrt.errors import InputError
from defectrt.files import first_of, leaves, read_input

from .items import (
    COMBINED,
    GOOD,
    NO_MASK,
    Item,
    Layout,
    Listing,
    Tree,
    as_defect_type,
    defect_type_of,
    subset_in,
)
from .shapes import Box, Shape

__all__ = [
    "PROPOSED",
    "Loose",
    "Mark",
    "Note",
    "annotated",
    "holding",
    "nearest",
    "number",
    "parse",
    "pictures",
    "proposal_of",
    "read_note",
    "xml_of",
]

#: Folder of the masks that were proposed for boxes, which no other layout looks into.
PROPOSED = PurePosixPath("proposed")
#: Bytes of a file of annotations.
_LONGEST = 1 << 30
#: Faults of one file that are told.
_TOLD = 5

_Model = TypeVar("_Model")


@dataclass(frozen=True)
class Mark:
    """One defect: its type, as it was written, and where it is."""

    label: str
    shape: Shape


@dataclass(frozen=True)
class Note:
    """What a file says of an image.

    image   its name as it stands there, and ``file``, where: relative to the dataset
    marks   its defects; none in a good image
    size    (H, W) that the file was made for, if it says so
    subset  of the dataset's own split, or ""
    fault   why it cannot be used
    """

    image: str
    file: PurePosixPath
    marks: tuple[Mark, ...] = ()
    size: tuple[int, int] | None = None
    subset: str = ""
    fault: str | None = None

    def with_marks(self, marks: Sequence[Mark], size: tuple[int, int] | None = None) -> Note:
        """The same with the defects of an image, and its size if that was not known."""
        return replace(self, marks=tuple(marks), size=size or self.size)

    def with_fault(self, fault: str) -> Note:
        """The same for an image that cannot be used."""
        return replace(self, fault=fault)


#: From a dataset's files that may be annotations to what they say of images.
Reader = Callable[[Tree, Sequence[PurePosixPath]], Iterator[Note]]
#: From a dataset to its files of annotations.
Found = Callable[[Tree], Sequence[PurePosixPath]]


def annotated(name: str, about: str, found: Found, read: Reader) -> Layout:
    """A layout whose defects are those that a reader finds in files of annotations.

    An image of which no file says anything is good in a folder of good images, and else unused.
    """
    return Layout(
        name,
        about,
        lambda tree: bool(found(tree)),
        lambda tree: Listing(tuple(_items(tree, read(tree, found(tree))))),
        annotated=True,
    )


def holding(suffix: str, *words: bytes) -> Found:
    """The files of a dataset that have a suffix, and all of the words in them."""

    def found(tree: Tree) -> list[PurePosixPath]:
        files = [file for file in tree.others if file.suffix.lower() == suffix]
        return [file for file in files if all(word in read_note(tree, file) for word in words)]

    return lru_cache(maxsize=4)(found)


def pictures(tree: Tree) -> list[PurePosixPath]:
    """The images of a dataset, without the masks that were proposed for them."""
    return [image for image in tree.images if image.parts[0] != PROPOSED.name]


def nearest(tree: Tree, file: PurePosixPath) -> PurePosixPath | None:
    """The image of a file's name that shares most folders with it; None if several do, or none."""
    images = [i for i in tree.of_stem.get(file.stem, []) if i.parts[0] != PROPOSED.name]
    near = [(_shared(image, file), image) for image in images]
    best = [image for shared, image in near if shared == max(near)[0]]
    return best[0] if len(best) == 1 else None


def _shared(one: PurePosixPath, other: PurePosixPath) -> tuple[bool, int]:
    """Whether two files lie in one folder, and how many folders they share at either end."""
    a, b = one.parent.parts, other.parent.parts
    ends = [zip(a, b, strict=False), zip(a[::-1], b[::-1], strict=False)]
    return a == b, sum(sum(1 for _ in takewhile(lambda p: p[0] == p[1], end)) for end in ends)


def proposal_of(image: PurePosixPath) -> PurePosixPath:
    """Where the mask lies that was proposed for an image, or that took its boxes' place."""
    return PROPOSED / image.parent / f"{image.stem}_mask.png"


def number(text: str | None, what: str) -> float:
    """A finite number. Raises `InputError` for other texts."""
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{what} is {text!r}, not a number")
    return value


def read_note(tree: Tree, file: PurePosixPath) -> bytes:
    """All of a file of annotations. Raises `InputError` if it cannot be read."""
    return read_input(tree.root / file, _LONGEST)


def parse(model: type[_Model], data: bytes, where: object) -> _Model:
    """What JSON says, as a model of pydantic. Raises `InputError` for other JSON, or none."""
    try:
        return TypeAdapter(model).validate_json(data)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:_TOLD]]
        more = f"; and {n} more" if (n := error.error_count() - _TOLD) > 0 else ""
        raise InputError(f"{where}: {'; '.join(faults)}{more}") from None
    except RecursionError:
        raise InputError(f"{where}: nested too deeply") from None


class Loose(BaseModel):
    """Others write more than is read here."""

    model_config = {"extra": "ignore", "frozen": True}


def xml_of(data: bytes, where: object) -> ElementTree.Element:
    """The root of XML. Raises `InputError` for what is none, or defines entities of its own."""
    try:
        return ElementTree.fromstring(data, ElementTree.XMLParser(target=_Plain()))
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise InputError(f"{where}: not XML that can be read ({error})") from None
    except RecursionError:
        raise InputError(f"{where}: nested too deeply") from None


class _Plain(ElementTree.TreeBuilder):
    def doctype(self, *_: object) -> None:
        """Entities could stand for more than there is memory."""
        raise ValueError("it has a DOCTYPE; export it without")


@dataclass
class _Said:
    """All that was said of one image."""

    marks: list[Mark] = field(default_factory=list)
    subset: str = ""
    faults: list[str] = field(default_factory=list)
    size: tuple[int, int] | None = None


def _items(tree: Tree, notes: Iterable[Note]) -> Iterator[Item]:
    images = pictures(tree)
    find = _Finder(images)
    said: dict[PurePosixPath, _Said] = defaultdict(_Said)
    for note in notes:
        image, fault = find(note.image)
        one = said[image]
        one.marks += note.marks
        one.subset = one.subset or note.subset
        one.size = one.size or note.size
        one.faults += [f"{note.file}: {f}" for f in (fault, note.fault) if f]
    for image in images:
        if image not in said and any(defect_type_of(part) == GOOD for part in image.parts[:-1]):
            said[image] = _Said()
    yield from (_item(tree, image, said[image]) for image in sorted(said, key=str))


def _item(tree: Tree, image: PurePosixPath, said: _Said) -> Item:
    subset = said.subset or subset_in(image.parts[:-1])
    try:
        types = {_type_of(mark.label) for mark in said.marks} - {GOOD}
    except InputError as fault:
        types, said.faults = {COMBINED}, [*said.faults, str(fault)]
    defect_type = COMBINED if len(types) > 1 else types.pop() if types else GOOD
    shapes = tuple(m.shape for m in said.marks if defect_type_of(m.label) != GOOD)
    item = Item(tree.root / image, str(image), defect_type, subset=subset)
    item = replace(item, shapes=shapes, drawn_for=said.size)
    if said.faults:
        return replace(item, fault=first_of(said.faults))
    if shapes and (proposal := proposal_of(image)) in tree.known:
        return replace(item, masks=(tree.root / proposal,), shapes=())
    if any(isinstance(shape, Box) for shape in shapes):
        why = "only a box around its defect; defectrt data propose makes masks to look at"
        return replace(item, fault=f"{NO_MASK}, {why}")
    return item


def _type_of(label: str) -> str:
    name = defect_type_of(as_defect_type(label))
    if not is_folder_name(name):
        raise InputError(f"the label {label!r} cannot be the name of a type of defect")
    return name


class _Finder:
    """Images by the names that annotations have for them, which rarely are their paths."""

    def __init__(self, images: Sequence[PurePosixPath]) -> None:
        self._ends: dict[PurePosixPath, list[PurePosixPath]] = defaultdict(list)
        for image in images:
            for start in range(len(image.parts)):
                self._ends[PurePosixPath(*image.parts[start:])].append(image)

    def __call__(self, name: str) -> tuple[PurePosixPath, str | None]:
        """The image whose path ends as the name does, as far as possible, and what is wrong.

        A name is looked up among the images of the dataset alone, wherever it points.
        """
        path = PurePosixPath(name.replace("\\", "/"))
        for start in range(len(path.parts)):
            found = self._ends.get(PurePosixPath(*path.parts[start:]), [])
            exact = [image for image in found if image == path]
            if len(exact or found) == 1:
                return (exact or found)[0], None
            if found:
                return path_of(path), f"{name!r} may be {first_of(sorted(map(str, found)))}"
        return path_of(path), f"names {name!r}, which is not in the folder"


def path_of(name: PurePosixPath) -> PurePosixPath:
    """A name that leads nowhere else, to speak of what is not there."""
    return name if not leaves(str(name)) and name.name else PurePosixPath(name.name or "nameless")
