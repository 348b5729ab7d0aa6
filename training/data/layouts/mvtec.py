"""MVTec AD, and MVTec LOCO AD, whose images have several masks each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
from pydantic import TypeAdapter, ValidationError

from defectrt.errors import InputError
from defectrt.images.types import Mask
from defectrt.masks.reading import MaskRule, MaskValues, mask_values, not_zero

from .items import (
    COMBINED,
    SUBSETS,
    DefectClass,
    Item,
    Layout,
    Listing,
    Tree,
    defect_type_of,
)
from .lists import read_list

__all__ = ["LOCO", "LOCO_CLASSES", "MVTEC"]

_TRUTH = PurePosixPath("ground_truth")


def _is_mvtec(tree: Tree) -> bool:
    return _is_divided(tree) and any(len(p.parts) == 3 for p in _truth(tree))


def _list_mvtec(tree: Tree) -> Listing:
    def item(image: PurePosixPath, defect_type: str, subset: str) -> Item:
        pair = tree.names.pair(image, _TRUTH / image.parts[1])
        return tree.item_of(pair, defect_type, subset)

    return Listing(tuple(_divided(tree, item)))


def _is_divided(tree: Tree) -> bool:
    return "test" in tree.subfolders()


def _truth(tree: Tree) -> Iterator[PurePosixPath]:
    return (p for p in tree.images if p.is_relative_to(_TRUTH))


def _divided(tree: Tree, item: Callable[[PurePosixPath, str, str], Item]) -> Iterator[Item]:
    """Images in train, validation and test; the folder below is the defect type."""
    for image in tree.images:
        if len(image.parts) == 3 and image.parts[0] in SUBSETS:
            yield item(image, defect_type_of(image.parts[1]), SUBSETS[image.parts[0]])


def _is_loco(tree: Tree) -> bool:
    return _is_divided(tree) and any(len(p.parts) == 4 for p in _truth(tree))


def _list_loco(tree: Tree) -> Listing:
    def item(image: PurePosixPath, defect_type: str, subset: str) -> Item:
        folder = _TRUTH / image.parts[1] / image.stem
        masks = tuple(tree.names.folders.get(folder, ()))
        fault = None if masks else f"it has no mask; expected {folder}/000.png"
        return tree.item(image, defect_type, masks, subset, fault)

    classes = _read_classes(tree.root / "defects_config.json")
    return Listing(tuple(_divided(tree, item)), _coded(classes) if classes else not_zero, classes)


def _list_loco_classes(tree: Tree) -> Listing:
    """Types by the values in the masks, which have to be decoded for it."""
    listing = _list_loco(tree)
    if not listing.classes:
        raise InputError(f"{tree.root}: without defects_config.json there are no classes")
    names = {c.pixel_value: c.defect_name for c in listing.classes}
    return replace(listing, items=tuple(_classed(item, names) for item in listing.items))


def _classed(item: Item, names: Mapping[int, str]) -> Item:
    try:
        values = {int(v) for path in item.masks for v in np.unique(mask_values(path).values)} - {0}
    except InputError as error:
        return replace(item, fault=str(error))
    found = {names[value] for value in values if value in names}
    if not found:
        return item
    return replace(item, defect_type=found.pop() if len(found) == 1 else COMBINED)


def _coded(classes: Iterable[DefectClass]) -> MaskRule:
    codes = sorted(c.pixel_value for c in classes)

    def rule(stored: MaskValues) -> Mask:
        unknown = set(np.unique(stored.values).tolist()) - {0, *codes}
        if unknown:
            raise InputError(
                f"holds the values {', '.join(map(str, sorted(unknown)))}, "
                "which defects_config.json does not explain"
            )
        return not_zero(stored)

    return rule


def _read_classes(path: Path) -> tuple[DefectClass, ...]:
    if not path.is_file():
        return ()
    try:
        classes = TypeAdapter(tuple[DefectClass, ...]).validate_json(read_list(path))
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise InputError(f"{path}: not a list of defect classes: {faults}") from error
    if len({c.pixel_value for c in classes}) < len(classes):
        raise InputError(f"{path}: two classes have the same pixel_value")
    return classes


MVTEC = Layout(
    "mvtec",
    "MVTec AD: train/good, test/<type>, ground_truth/<type>/<name>_mask.png",
    _is_mvtec,
    _list_mvtec,
)
LOCO = Layout(
    "loco",
    "MVTec LOCO AD: test/<type>, ground_truth/<type>/<name>/000.png, defects_config.json",
    _is_loco,
    _list_loco,
)
LOCO_CLASSES = Layout(
    "loco-classes",
    "MVTec LOCO AD, the defect types being the classes of defects_config.json",
    _is_loco,
    _list_loco_classes,
)
