"""What a layout makes of a folder: its images as items, and the rule for their masks."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from pydantic import BaseModel, Field

from defectrt.config.names import COMBINED
from defectrt.images.folder import find_files, images_of
from defectrt.masks.pairing import Names, Pair
from defectrt.masks.reading import MaskRule, unsmeared

from .shapes import Shape

__all__ = [
    "COMBINED",
    "GOOD",
    "NO_MASK",
    "SUBSETS",
    "DefectClass",
    "Item",
    "Layout",
    "Listing",
    "Tree",
    "as_defect_type",
    "defect_type_of",
    "subset_in",
]

#: The defect type of an image without a defect.
GOOD = "good"
#: What the fault of an image that lacks its mask begins with.
NO_MASK = "it has no mask"
#: Folders that hold good images, in lower case; they count in any.
_GOOD_NAMES = {GOOD, "ok", "free", "normal", "defect_free", "defect-free", "no_defect"}
#: Folders of a dataset's own split, likewise, and the subset that each is.
SUBSETS = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}


@dataclass(frozen=True)
class Item:
    """One image of a dataset, as it is named; nothing has been read.

    path         the image, and ``name`` the same relative to the dataset
    defect_type  of defect, or `GOOD`
    masks        files whose defects add up; none for a good image
    shapes       defects that are drawn in a file of annotations, for images of the size
                 ``drawn_for`` (H, W) if it says one
    subset       of the layout's own split: train, validation or test, or "" if it has none
    fault        why the image cannot be used, if the names alone say so
    """

    path: Path
    name: str
    defect_type: str
    masks: tuple[Path, ...] = ()
    subset: str = ""
    fault: str | None = None
    shapes: tuple[Shape, ...] = ()
    drawn_for: tuple[int, int] | None = None


class DefectClass(BaseModel):
    """A class of MVTec LOCO AD, from defects_config.json.

    Segmenting ``saturation_threshold`` pixels of it (or, if ``relative_saturation``, that share
    of its mask) is all that can be asked for: the mask of a missing part, say, shows every place
    where the part could be.
    """

    defect_name: str = Field(pattern=r"^\w[\w .+-]*$")
    pixel_value: int = Field(ge=1, le=255)
    saturation_threshold: float = Field(gt=0)
    relative_saturation: bool


@dataclass(frozen=True)
class Listing:
    """What a layout found: its images in the order of their names, and how to read masks."""

    items: tuple[Item, ...]
    rule: MaskRule = unsmeared
    classes: tuple[DefectClass, ...] = ()


class Tree:
    """The images below a folder by name; listed once."""

    def __init__(
        self,
        root: Path,
        images: tuple[PurePosixPath, ...],
        others: tuple[PurePosixPath, ...] = (),
    ) -> None:
        """``images`` and ``others``, files that are none, are relative to the root, in order."""
        self.root, self.images, self.others = root, images, others
        self.names = Names(images)

    @classmethod
    def of(cls, root: Path) -> Tree:
        """List a folder. Raises `InputError` if there is none."""
        files = find_files(root)
        images = dict.fromkeys(images_of(files))
        names = {path: PurePosixPath(path.relative_to(root).as_posix()) for path in files}
        others = tuple(name for path, name in names.items() if path not in images)
        return cls(root, tuple(names[path] for path in images), others)

    @cached_property
    def known(self) -> frozenset[PurePosixPath]:
        """The images, to look up."""
        return frozenset(self.images)

    @cached_property
    def of_stem(self) -> dict[str, list[PurePosixPath]]:
        """The images by their names without suffix."""
        found = defaultdict(list)
        for image in self.images:
            found[image.stem].append(image)
        return found

    def below(self, name: str) -> Tree:
        """The part of the tree in the subfolder ``name``."""
        images, others = (
            tuple(p.relative_to(name) for p in files if p.parts[0] == name)
            for files in (self.images, self.others)
        )
        return Tree(self.root / name, images, others)

    def subfolders(self) -> list[str]:
        """Subfolders of the root that hold images, at any depth."""
        return sorted({p.parts[0] for p in self.images if len(p.parts) > 1})

    def item(
        self,
        image: PurePosixPath,
        defect_type: str,
        masks: tuple[PurePosixPath, ...] = (),
        subset: str = "",
        fault: str | None = None,
    ) -> Item:
        """An item of this tree; one of a defect without a mask is a fault.

        A good image needs no mask, and one that it has is not looked at.
        """
        if defect_type == GOOD:
            return Item(self.root / image, str(image), GOOD, subset=subset)
        paths = tuple(self.root / mask for mask in masks)
        fault = fault or (None if masks else f"{NO_MASK}; expected {image.stem}_mask.png")
        return Item(self.root / image, str(image), defect_type, paths, subset, fault)

    def item_of(self, pair: Pair, defect_type: str, subset: str = "") -> Item:
        """The item of an image with one mask."""
        masks = (pair.mask,) if pair.mask else ()
        return self.item(pair.image, defect_type, masks, subset, pair.fault)


@dataclass(frozen=True)
class Layout:
    """A way to lay out a dataset.

    matches whether a folder is laid out so; ``list`` lists it and raises `InputError` if it is
    not; ``about`` is a line for people. A ``loose`` one matches at any depth, so that a folder of
    datasets may look like one; an ``annotated`` one counts where no masks are laid out in a way of
    their own.
    """

    name: str
    about: str
    matches: Callable[[Tree], bool]
    list: Callable[[Tree], Listing]
    loose: bool = False
    annotated: bool = False


def defect_type_of(folder: str) -> str:
    """The type that a folder is named after; all names of good ones are `GOOD`."""
    return GOOD if folder.lower() in _GOOD_NAMES else folder


def as_defect_type(label: str) -> str:
    """A label as a defect type, which names folders too."""
    return re.sub(r"[^\w .+-]+", "_", label.lower()).strip(" ._+-")


def subset_in(folders: Iterable[str]) -> str:
    """The subset that the first of some folders is, or ""."""
    return next((SUBSETS[name.lower()] for name in folders if name.lower() in SUBSETS), "")
