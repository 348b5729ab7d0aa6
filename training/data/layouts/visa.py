"""VisA as it is published."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from .items import COMBINED, GOOD, Layout, Listing, Tree, as_defect_type, defect_type_of
from .lists import read_csv

__all__ = ["IMAGES", "VISA"]

IMAGES = PurePosixPath("Data", "Images")
_MASKS = PurePosixPath("Data", "Masks")


def _is_visa(tree: Tree) -> bool:
    return any(_is_image(p) for p in tree.images)


def _is_image(path: PurePosixPath) -> bool:
    return len(path.parts) == 4 and path.is_relative_to(IMAGES)


def _list_visa(tree: Tree) -> Listing:
    labels, subsets = _labels(tree.root), _subsets(tree.root)
    items = []
    for image in filter(_is_image, tree.images):
        folder, name = image.parts[2], str(image)
        defect_type = defect_type_of(folder)
        if defect_type != GOOD:
            defect_type = labels.get(name, folder.lower())
        pair = tree.names.pair(image, _MASKS / folder)
        items.append(tree.item_of(pair, defect_type, subsets.get(name, "")))
    return Listing(tuple(items))


def _labels(root: Path) -> dict[str, str]:
    """Types by image; an image with several labels is `COMBINED`."""
    defect_types = {}
    for row in read_csv(root / "image_anno.csv", ("image", "label")):
        labels = [label for text in row["label"].split(",") if (label := as_defect_type(text))]
        if labels:
            defect_types[_inside(row["image"], root)] = labels[0] if len(labels) == 1 else COMBINED
    return defect_types


def _subsets(root: Path) -> dict[str, str]:
    """Subsets by image, from the one-class split that is VisA's usual one."""
    files = [folder / "split_csv" / "1cls.csv" for folder in (root, root.parent)]
    path = next((file for file in files if file.is_file()), None)
    if path is None:
        return {}
    rows = read_csv(path, ("object", "split", "image"))
    return {_inside(r["image"], root): r["split"] for r in rows if r["object"] == root.name}


def _inside(name: str, root: Path) -> str:
    """VisA names images from the folder above the object's: candle/Data/Images/…"""
    return name.removeprefix(f"{root.name}/")


VISA = Layout(
    "visa",
    "VisA: Data/Images/Normal, Data/Images/Anomaly, Data/Masks/Anomaly",
    _is_visa,
    _list_visa,
)
