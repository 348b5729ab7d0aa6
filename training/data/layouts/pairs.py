"""Images with the masks beside them, or in a folder of masks beside theirs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from defectrt.masks.pairing import IMAGE_FOLDERS, Pair

from .items import SUBSETS, Item, Layout, Listing, Tree, defect_type_of, subset_in
from .visa import IMAGES as VISA_IMAGES

__all__ = ["FOLDERS", "PAIRS"]


def _is_pairs(tree: Tree) -> bool:
    return any(pair.mask for folder in tree.names.folders for pair in tree.names.beside(folder))


def _list_pairs(tree: Tree) -> Listing:
    names = tree.names
    return _listing(tree, ((folder, names.beside(folder)) for folder in names.folders))


def _is_folders(tree: Tree) -> bool:
    """VisA's Data/Images and Data/Masks are none."""
    ends = (twins.images.parts[-2:] for twins in tree.names.twins)
    return any(end != VISA_IMAGES.parts for end in ends)


def _list_folders(tree: Tree) -> Listing:
    """Where no masks are near, images are good, or have none."""
    names = tree.names
    return _listing(
        tree,
        (
            (folder, [Pair(image) for image in images] if parallel is None else parallel)
            for folder, images in names.folders.items()
            for parallel in [names.parallel(folder)]
        ),
    )


def _listing(tree: Tree, folders: Iterable[tuple[PurePosixPath, Sequence[Pair]]]) -> Listing:
    found = [(folder, pairs) for folder, pairs in folders if pairs]
    named = {folder: _name(tree, folder) for folder, _ in found}
    cut = _shared_capitals(set(named.values()))
    items: list[Item] = []
    for folder, pairs in found:
        defect_type = defect_type_of(named[folder][cut:].lower())
        items += (tree.item_of(pair, defect_type, subset_in(folder.parts)) for pair in pairs)
    return Listing(tuple(sorted(items, key=lambda item: item.name)))


def _name(tree: Tree, folder: PurePosixPath) -> str:
    """What names the defect type of a folder: one below images/, or the first, or the root."""
    twins = tree.names.twins_above(folder)
    inside = (
        folder.relative_to(twins.images) if twins and folder.is_relative_to(twins.images) else None
    )
    parts = (*inside.parts, *twins.parent.parts) if inside and twins else folder.parts
    named = [p for p in parts if p.lower() not in IMAGE_FOLDERS and p.lower() not in SUBSETS]
    return named[0] if named else tree.root.resolve().name


def _shared_capitals(names: set[str]) -> int:
    """How many characters of all names are capitals that they all begin with, as in MT_Crack."""
    shared = {match[0] if (match := re.match(r"[A-Z]+[_-]", n)) else "" for n in names}
    return len(shared.pop()) if len(names) > 1 and len(shared) == 1 else 0


PAIRS = Layout(
    "pairs",
    "pairs: <type>/…/name.jpg beside name.png or name_mask.png",
    _is_pairs,
    _list_pairs,
    loose=True,
)
FOLDERS = Layout(
    "folders",
    "folders: <type>/images beside <type>/masks, or images/<type> beside masks/<type>",
    _is_folders,
    _list_folders,
    loose=True,
)
