"""Datasets of defects as they lie on disk: recognised, listed, and read under one rule a layout.

Listing looks at names only; nothing is decoded, except for ``loco-classes``.

name          what is there
mvtec         train/good, test/<type>, ground_truth/<type>/<name>_mask.png (MVTec AD; VisA after
              its own prepare_data.py, without _mask)
loco          the same, ground_truth/<type>/<name>/000.png …, several masks an image, and
              defects_config.json beside them (MVTec LOCO AD)
loco-classes  the same, the defect types being the classes of defects_config.json; has to be named
visa          Data/Images/Normal and Anomaly, Data/Masks/Anomaly, image_anno.csv; split_csv
              beside it
pairs         <type>/…/name.jpg beside name.png or name_mask.png (magnetic tiles)
folders       <type>/images beside <type>/masks, or images/<type> beside masks/<type>
coco, yolo, voc, labelme, cvat, label-studio
              images, and files of annotations that name them, see `notes`

What is defect in a mask, `defectrt.masks.reading` says, for every layout but MVTec LOCO AD: there
it is the pixel values of defects_config.json, the masks of an image together.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from defectrt.errors import InputError

from .coco import COCO
from .cvat import CVAT
from .items import GOOD, DefectClass, Item, Layout, Listing, Tree
from .label_studio import LABEL_STUDIO
from .labelme import LABELME
from .mvtec import LOCO, LOCO_CLASSES, MVTEC
from .pairs import FOLDERS, PAIRS
from .visa import VISA
from .voc import VOC
from .yolo import YOLO

__all__ = [
    "GOOD",
    "LAYOUTS",
    "LOCO",
    "LOCO_CLASSES",
    "DefectClass",
    "Item",
    "Layout",
    "Listing",
    "Tree",
    "find_layout",
]

#: All layouts by name.
LAYOUTS = {
    layout.name: layout
    for layout in (
        *(MVTEC, LOCO, LOCO_CLASSES, VISA, PAIRS, FOLDERS),
        *(COCO, YOLO, VOC, LABELME, CVAT, LABEL_STUDIO),
    )
}


def find_layout(root: Path, layout: str | None = None) -> tuple[Layout, Tree]:
    """The layout of a folder, recognised or named, and the folder: ``root`` or one in it.

    Raises `InputError` for a name that is not in `LAYOUTS`, for a folder that is laid out in none
    of the known ways, and, listing all of them, if there is more than one way to read it.
    """
    if layout is not None and layout not in LAYOUTS:
        raise InputError(f"layout {layout!r}: one of {', '.join(LAYOUTS)}")
    known = [LAYOUTS[layout]] if layout else [x for x in LAYOUTS.values() if x is not LOCO_CLASSES]
    whole = Tree.of(root)
    found = _found(whole, [x for x in known if not x.annotated])
    if all(x.loose for x, _ in found):
        found += _found(whole, [x for x in known if x.annotated])
    if len(found) == 1:
        return found[0]
    if not found:
        wanted = known if layout else LAYOUTS.values()
        lines = "".join(f"\n  {x.name}: {x.about}" for x in wanted)
        raise InputError(f"{root}: laid out in no way that is known:{lines}")
    lines = "".join(f"\n  {tree.root} as {x.name}" for x, tree in found)
    raise InputError(f"{root}: more than one way to read it; name one folder and --layout:{lines}")


def _found(whole: Tree, known: Sequence[Layout]) -> list[tuple[Layout, Tree]]:
    """The ways to read a folder, or where none is certain, those in it."""
    found = [(x, whole) for x in known if x.matches(whole)]
    if all(x.loose for x, _ in found):
        parts = [whole.below(name) for name in whole.subfolders()]
        strict = [x for x in known if not x.loose]
        found += [(x, part) for part in parts for x in strict if x.matches(part)]
    return found
