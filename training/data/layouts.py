"""Datasets of defects as they lie on disk: recognised, listed, and read under one rule a layout.

Listing looks at names only; nothing is decoded. Every layout says what counts as defect in its
masks, and none of them thresholds in the middle of the range: several datasets encode classes
in small or in neighbouring numbers.

name          what is there                                      what is defect
mvtec         train/good, test/<type>, ground_truth/<type>/      every value but 0
              <name>_mask.png (MVTec AD; VisA after its own
              prepare_data.py, without _mask)
loco          the same, ground_truth/<type>/<name>/000.png …     the pixel values in
              several masks an image, defects_config.json       defects_config.json; the
              beside them (MVTec LOCO AD)                        masks of an image together
loco-classes  the same, the defect types being the classes of           likewise
              defects_config.json; has to be named
visa          Data/Images/Normal and Anomaly, Data/Masks/        every value but 0; values
              Anomaly, image_anno.csv; split_csv beside it       are classes from 1 on
pairs         <type>/…/name.jpg beside name.png or               every value but 0; a smeared
              name_mask.png (magnetic tiles)                     mask from half its maximum on
folders       <type>/images beside <type>/masks, or              likewise
              images/<type> beside masks/<type>

A mask is smeared if it holds more than four values besides 0, up to above 32: resampling or a
lossy codec did that, and the fringe it left would make a crack half as wide again.
"""

from __future__ import annotations

import csv
import io
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TypeAlias

import numpy as np
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from defectrt.errors import InputError
from defectrt.images.folder import find_images
from defectrt.images.reading import read_image
from defectrt.images.types import Bits, Mask, without_alpha

__all__ = [
    "GOOD",
    "LAYOUTS",
    "DefectClass",
    "Item",
    "Layout",
    "Listing",
    "MaskRule",
    "find_layout",
    "from_value",
    "mask_values",
    "not_zero",
    "smeared",
    "unsmeared",
]

#: The defect type of an image without a defect.
GOOD = "good"
#: Kinds made of several classes in one image, as MVTec AD names them.
COMBINED = "combined"
#: Folders that hold good images.
_GOOD_NAMES = {GOOD, "ok", "free", "normal", "defect_free", "defect-free", "no_defect"}
_IMAGES = {"images", "image", "imgs", "img"}
_VISA = ("Data", "Images")
_MASKS = {"masks", "mask", "labels", "label", "ground_truth"}
#: Lists that come with datasets are small; VisA's largest is under 1 MiB.
_MAX_LIST = 16 << 20
#: Layouts that match at any depth, so that a folder of datasets may look like one.
_LOOSE = {"pairs", "folders"}

#: Mask values [H,W] to what is defect [H,W]. Raises `InputError` for values that mean nothing.
MaskRule: TypeAlias = Callable[[Bits], Mask]


@dataclass(frozen=True)
class Item:
    """One image of a dataset, as it is named; nothing has been read.

    path         the image, and ``name`` the same relative to the dataset
    defect_type  of defect, or `GOOD`
    masks        files whose defects add up; none for a good image
    part         of the layout's own split: train, validation or test, or "" if it has none
    fault        why the image cannot be used, if the names alone say so
    """

    path: Path
    name: str
    defect_type: str
    masks: tuple[Path, ...] = ()
    part: str = ""
    fault: str | None = None


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
    rule: MaskRule
    classes: tuple[DefectClass, ...] = ()


@dataclass(frozen=True)
class Layout:
    """A way to lay out a dataset.

    matches whether a folder is laid out so; ``list`` lists it and raises `InputError` if it is
    not; ``about`` is a line for people.
    """

    name: str
    about: str
    matches: Callable[[Tree], bool]
    list: Callable[[Tree], Listing]


@dataclass(frozen=True)
class Tree:
    """The images below a folder by name, nothing hidden; listed once."""

    root: Path
    images: tuple[PurePosixPath, ...]
    _folders: dict[PurePosixPath, list[PurePosixPath]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Sort the images into their folders."""
        folders: dict[PurePosixPath, list[PurePosixPath]] = defaultdict(list)
        for image in self.images:
            folders[image.parent].append(image)
        object.__setattr__(self, "_folders", dict(folders))

    @classmethod
    def of(cls, root: Path) -> Tree:
        """List a folder. Raises `InputError` if there is none."""
        if not root.is_dir():
            raise InputError(f"{root}: no such folder")
        paths = (PurePosixPath(p.relative_to(root).as_posix()) for p in find_images(root))
        return cls(root, tuple(p for p in paths if not _hidden(p)))

    def below(self, name: str) -> Tree:
        """The part of the tree in the subfolder ``name``."""
        inside = (p.relative_to(name) for p in self.images if p.parts[0] == name)
        return Tree(self.root / name, tuple(inside))

    def subfolders(self) -> list[str]:
        """Subfolders of the root that hold images, at any depth."""
        return sorted({p.parts[0] for p in self.images if len(p.parts) > 1})

    def folders(self) -> Mapping[PurePosixPath, list[PurePosixPath]]:
        """The images of every folder that has some."""
        return self._folders

    def mask_of(self, image: PurePosixPath, folder: PurePosixPath) -> PurePosixPath | None:
        """The mask of an image in ``folder``: name_mask.* before name.*, PNG before others."""
        found = [
            p
            for p in self._folders.get(folder, ())
            if p.stem in (image.stem, f"{image.stem}_mask") and p != image
        ]
        best = sorted(found, key=lambda p: (p.stem == image.stem, p.suffix.lower() != ".png"))
        return best[0] if best else None

    def item(
        self,
        image: PurePosixPath,
        defect_type: str,
        masks: Iterable[PurePosixPath | None] = (),
        part: str = "",
        *,
        fault: str | None = None,
    ) -> Item:
        """An item of this tree; one of a defect without a mask is a fault."""
        paths = tuple(self.root / m for m in masks if m is not None)
        if defect_type != GOOD and not paths:
            fault = fault or "it has no mask"
        return Item(self.root / image, str(image), defect_type, paths, part, fault)


def find_layout(root: Path, layout: str | None = None) -> tuple[Layout, Tree]:
    """The layout of a folder, recognised or named, and the folder: ``root`` or one in it.

    Raises `InputError` for a name that is not in `LAYOUTS`, for a folder that is laid out in none
    of the known ways, and, listing all of them, if there is more than one way to read it.
    """
    if layout is not None and layout not in LAYOUTS:
        raise InputError(f"layout {layout!r}: one of {', '.join(LAYOUTS)}")
    known = [LAYOUTS[layout]] if layout else [x for x in LAYOUTS.values() if x is not _LOCO_CLASSES]
    whole = Tree.of(root)
    found = [(x, whole) for x in known if x.matches(whole)]
    if all(x.name in _LOOSE for x, _ in found):
        parts = [whole.below(name) for name in whole.subfolders()]
        strict = [x for x in known if x.name not in _LOOSE]
        found += [(x, part) for part in parts for x in strict if x.matches(part)]
    if len(found) == 1:
        return found[0]
    if not found:
        wanted = known if layout else LAYOUTS.values()
        lines = "".join(f"\n  {x.name}: {x.about}" for x in wanted)
        raise InputError(f"{root}: laid out in no way that is known:{lines}")
    lines = "".join(f"\n  {tree.root} as {x.name}" for x, tree in found)
    raise InputError(f"{root}: more than one way to read it; name one folder and --layout:{lines}")


# What counts as defect


def mask_values(path: Path) -> Bits:
    """The values of a mask file, [H,W]: the brightest channel, without alpha."""
    image = read_image(path)
    return without_alpha(image).max(axis=2)


def not_zero(values: Bits) -> Mask:
    """Every value but 0."""
    return np.asarray(values > 0)


def from_value(threshold: int) -> MaskRule:
    """Every value from ``threshold`` on."""
    return lambda values: np.asarray(values >= threshold)


def smeared(values: Bits) -> bool:
    """More than four values besides 0, up to above 32: a fringe, not classes."""
    found = np.unique(values)
    return bool(found[-1] > 32 and np.count_nonzero(found) > 4)


def unsmeared(values: Bits) -> Mask:
    """Every value but 0; from half the maximum on if the mask was `smeared`."""
    return np.asarray(2.0 * values >= values.max()) if smeared(values) else not_zero(values)


def _coded(classes: Iterable[DefectClass]) -> MaskRule:
    codes = sorted(c.pixel_value for c in classes)

    def rule(values: Bits) -> Mask:
        unknown = set(np.unique(values).tolist()) - {0, *codes}
        if unknown:
            raise InputError(
                f"holds the values {', '.join(map(str, sorted(unknown)))}, "
                "which defects_config.json does not explain"
            )
        return not_zero(values)

    return rule


# MVTec AD


def _is_mvtec(tree: Tree) -> bool:
    return _has_parts(tree) and any(_depth(p) == 3 for p in _truth(tree))


def _list_mvtec(tree: Tree) -> Listing:
    def masks(image: PurePosixPath, defect_type: str) -> list[PurePosixPath | None]:
        return [tree.mask_of(image, PurePosixPath("ground_truth", defect_type))]

    return Listing(tuple(_parted(tree, masks)), not_zero)


def _has_parts(tree: Tree) -> bool:
    return "test" in tree.subfolders()


def _truth(tree: Tree) -> Iterator[PurePosixPath]:
    return (p for p in tree.images if p.parts[0] == "ground_truth")


def _depth(path: PurePosixPath) -> int:
    return len(path.parts)


def _parted(
    tree: Tree, masks: Callable[[PurePosixPath, str], list[PurePosixPath | None]]
) -> Iterator[Item]:
    """Images in train, validation and test; the folder below is the defect type."""
    for image in tree.images:
        part, defect_type = image.parts[0], image.parts[1]
        if part in ("train", "validation", "test") and _depth(image) == 3:
            yield tree.item(
                image, defect_type, masks(image, defect_type) if defect_type != GOOD else (), part
            )


# MVTec LOCO AD


def _is_loco(tree: Tree) -> bool:
    return _has_parts(tree) and any(_depth(p) == 4 for p in _truth(tree))


def _list_loco(tree: Tree) -> Listing:
    def masks(image: PurePosixPath, defect_type: str) -> list[PurePosixPath | None]:
        folder = PurePosixPath("ground_truth", defect_type, image.stem)
        return list(tree.folders().get(folder, ()))

    classes = _read_classes(tree.root / "defects_config.json")
    return Listing(tuple(_parted(tree, masks)), _coded(classes) if classes else not_zero, classes)


def _list_loco_classes(tree: Tree) -> Listing:
    """Kinds by the values in the masks, which have to be decoded for it."""
    listing = _list_loco(tree)
    if not listing.classes:
        raise InputError(f"{tree.root}: without defects_config.json there are no classes")
    names = {c.pixel_value: c.defect_name for c in listing.classes}
    items = (_classed(item, names) for item in listing.items)
    return Listing(tuple(items), listing.rule, listing.classes)


def _classed(item: Item, names: Mapping[int, str]) -> Item:
    try:
        values = {int(v) for path in item.masks for v in np.unique(mask_values(path))} - {0}
    except InputError as error:
        return Item(item.path, item.name, item.defect_type, item.masks, item.part, str(error))
    found = {names[value] for value in values if value in names}
    if not found:
        return item
    defect_type = found.pop() if len(found) == 1 else COMBINED
    return Item(item.path, item.name, defect_type, item.masks, item.part, item.fault)


def _read_classes(path: Path) -> tuple[DefectClass, ...]:
    if not path.is_file():
        return ()
    try:
        classes = TypeAdapter(tuple[DefectClass, ...]).validate_json(_read_list(path))
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise InputError(f"{path}: not a list of defect classes: {faults}") from error
    if len({c.pixel_value for c in classes}) < len(classes):
        raise InputError(f"{path}: two classes have the same pixel_value")
    return classes


# VisA


def _is_visa(tree: Tree) -> bool:
    return any(p.parts[:2] == _VISA and _depth(p) == 4 for p in tree.images)


def _list_visa(tree: Tree) -> Listing:
    labels, parts = _visa_labels(tree.root), _visa_parts(tree.root)
    items = []
    for image in tree.images:
        if image.parts[:2] != _VISA or _depth(image) != 4:
            continue
        folder, name = image.parts[2], str(image)
        if folder.lower() in _GOOD_NAMES:
            items.append(tree.item(image, GOOD, part=parts.get(name, "")))
        else:
            mask = tree.mask_of(image, PurePosixPath("Data", "Masks", folder))
            defect_type = labels.get(name, folder.lower())
            items.append(tree.item(image, defect_type, [mask], parts.get(name, "")))
    return Listing(tuple(items), not_zero)


def _visa_labels(root: Path) -> dict[str, str]:
    """Kinds by image; an image with several labels is `COMBINED`."""
    defect_types = {}
    for row in _read_csv(root / "image_anno.csv", ("image", "label")):
        labels = [label for text in row["label"].split(",") if (label := _as_defect_type(text))]
        if labels:
            defect_types[_inside(row["image"], root)] = labels[0] if len(labels) == 1 else COMBINED
    return defect_types


def _as_defect_type(label: str) -> str:
    """A label as a defect type, which names folders too."""
    return re.sub(r"[^\w .+-]+", "_", label.lower()).strip(" ._+-")


def _visa_parts(root: Path) -> dict[str, str]:
    """Parts by image, from the one-class split that is VisA's usual one."""
    files = [folder / "split_csv" / "1cls.csv" for folder in (root, root.parent)]
    path = next((file for file in files if file.is_file()), None)
    if path is None:
        return {}
    rows = _read_csv(path, ("object", "split", "image"))
    return {_inside(r["image"], root): r["split"] for r in rows if r["object"] == root.name}


def _inside(name: str, root: Path) -> str:
    """VisA names images from the folder above the object's: candle/Data/Images/…"""
    return name.removeprefix(f"{root.name}/")


def _read_csv(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    try:
        rows = list(csv.DictReader(io.StringIO(_read_list(path).decode("utf-8-sig"), newline="")))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV file that can be read ({error})") from error
    if any(row.get(column) is None for row in rows for column in columns):
        raise InputError(f"{path}: expected a CSV file with the columns {', '.join(columns)}")
    return rows


def _read_list(path: Path) -> bytes:
    try:
        if path.stat().st_size > _MAX_LIST:
            raise InputError(f"{path}: larger than {_MAX_LIST >> 20} MiB, too large for a list")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


# Pairs side by side


def _is_pairs(tree: Tree) -> bool:
    return any(_paired(tree, folder) for folder in tree.folders())


def _paired(tree: Tree, folder: PurePosixPath) -> dict[PurePosixPath, PurePosixPath]:
    """Images of a folder with the mask beside them; nothing is both."""
    images = tree.folders()[folder]
    pairs = {p: mask for p in images if (mask := _beside(tree, p)) is not None}
    masks = set(pairs.values())
    return {p: mask for p, mask in pairs.items() if p not in masks}


def _beside(tree: Tree, image: PurePosixPath) -> PurePosixPath | None:
    """name_mask.* of any image; name.png only of one that is not a PNG: masks are lossless."""
    mask = tree.mask_of(image, image.parent)
    if mask is None or (mask.stem == image.stem and mask.suffix.lower() != ".png"):
        return None
    return mask


def _list_pairs(tree: Tree) -> Listing:
    defect_types = _defect_types({folder: _first(tree, folder) for folder in tree.folders()})
    items = [
        tree.item(image, *_defect_type_and_mask(defect_types[folder], pairs.get(image)))
        for folder, images in tree.folders().items()
        for pairs in [_paired(tree, folder)]
        for image in set(images) - set(pairs.values())
    ]
    return Listing(tuple(sorted(items, key=lambda item: item.name)), unsmeared)


def _defect_type_and_mask(
    defect_type: str, mask: PurePosixPath | None
) -> tuple[str, tuple[PurePosixPath | None, ...]]:
    """A good image needs no mask, and one that it has is not looked at."""
    return (GOOD, ()) if defect_type in _GOOD_NAMES else (defect_type, (mask,))


def _first(tree: Tree, folder: PurePosixPath) -> str:
    """The folder below the root, which names the defect type; else the root's own name."""
    named = [part for part in folder.parts if part.lower() not in _IMAGES]
    return named[0] if named else tree.root.resolve().name


def _defect_types(names: Mapping[PurePosixPath, str]) -> dict[PurePosixPath, str]:
    """Kinds by folder: its name in lower case, without capitals that all begin with (MT_)."""
    shared = {match[0] if (match := re.match(r"[A-Z]+[_-]", n)) else "" for n in names.values()}
    cut = len(shared.pop()) if len(set(names.values())) > 1 and len(shared) == 1 else 0
    return {folder: name[cut:].lower() for folder, name in names.items()}


# Two parallel folders


def _is_folders(tree: Tree) -> bool:
    return bool(_twins(tree))


def _twins(tree: Tree) -> dict[PurePosixPath, tuple[str, str]]:
    """Folders that hold a folder of images and one of masks, with the names of the two.

    VisA's Data/Images and Data/Masks are none.
    """
    children: dict[PurePosixPath, set[str]] = defaultdict(set)
    for folder in tree.folders():
        for path in (folder, *folder.parents):
            children[path.parent].add(path.name)
    found = {}
    for parent, names in children.items():
        images = sorted(n for n in names if n.lower() in _IMAGES)
        masks = sorted(n for n in names if n.lower() in _MASKS)
        if len(images) == len(masks) == 1 and (*parent.parts[-1:], images[0]) != _VISA:
            found[parent] = images[0], masks[0]
    return found


def _list_folders(tree: Tree) -> Listing:
    masks_of = _folders_of_masks(tree)
    defect_types = _defect_types(
        {folder: defect_type for folder, (defect_type, _) in masks_of.items()}
    )
    items = [
        tree.item(
            p,
            *_defect_type_and_mask(defect_types[folder], tree.mask_of(p, masks) if masks else None),
        )
        for folder, (_, masks) in masks_of.items()
        for p in tree.folders()[folder]
    ]
    return Listing(tuple(sorted(items, key=lambda item: item.name)), unsmeared)


def _folders_of_masks(
    tree: Tree,
) -> dict[PurePosixPath, tuple[str, PurePosixPath | None]]:
    """Every folder of images, with what names its type and the folder of its masks, if any."""
    twins, found = _twins(tree), dict[PurePosixPath, tuple[str, PurePosixPath | None]]()
    for folder in tree.folders():
        parent = next((p for p in (folder, *folder.parents) if p in twins), None)
        if parent is None:  # no masks near: good images, or a fault
            found[folder] = _first(tree, folder), None
            continue
        images, masks = twins[parent]
        inner = folder.relative_to(parent)
        if inner.parts[:1] == (images,):
            below = inner.relative_to(images)
            name = below.parts[0] if below.parts else _first(tree, parent)
            found[folder] = name, parent / masks / below
        elif inner.parts[:1] != (masks,):
            found[folder] = _first(tree, folder), None
    return found


def _hidden(path: PurePosixPath) -> bool:
    """Folders such as __MACOSX, which archives leave behind."""
    return any(part.startswith("__") for part in path.parts[:-1])


_LOCO_CLASSES = Layout(
    "loco-classes",
    "MVTec LOCO AD, the defect types being the classes of defects_config.json",
    _is_loco,
    _list_loco_classes,
)
#: All layouts by name.
LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout(
            "mvtec",
            "MVTec AD: train/good, test/<type>, ground_truth/<type>/<name>_mask.png",
            _is_mvtec,
            _list_mvtec,
        ),
        Layout(
            "loco",
            "MVTec LOCO AD: test/<type>, ground_truth/<type>/<name>/000.png, defects_config.json",
            _is_loco,
            _list_loco,
        ),
        _LOCO_CLASSES,
        Layout(
            "visa",
            "VisA: Data/Images/Normal, Data/Images/Anomaly, Data/Masks/Anomaly",
            _is_visa,
            _list_visa,
        ),
        Layout(
            "pairs",
            "pairs: <type>/…/name.jpg beside name.png or name_mask.png",
            _is_pairs,
            _list_pairs,
        ),
        Layout(
            "folders",
            "folders: <type>/images beside <type>/masks, or images/<type> beside masks/<type>",
            _is_folders,
            _list_folders,
        ),
    )
}
