"""Masks that are proposed for defective images without one, to be looked at before they are used.

What a good surface looks like at each place, the good images say: how much darker or brighter than
its surroundings a px gets there. What is further away than almost all of them is proposed, down to
half of its own contrast. Where the images show the same view, their places are compared px by px,
otherwise roughly, so that rims and edges, which every image has, are no defects.

A proposed mask says so in its file, and no longer once somebody has changed it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from itertools import islice
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from defectrt.errors import InputError
from defectrt.files import write_whole
from defectrt.images.reading import read_image
from defectrt.images.types import Bits, Mask, brightness
from defectrt.masks.pairing import MASK_FOLDERS
from defectrt.progress import Progress

from .layouts import GOOD, Item, Tree, find_layout
from .layouts.items import NO_MASK, SUBSETS, defect_type_of
from .layouts.mvtec import MVTEC
from .layouts.notes import proposal_of
from .layouts.pairs import FOLDERS, PAIRS
from .layouts.shapes import Box
from .layouts.yolo import read_lines
from .samples import Sample, drawn_mask

__all__ = ["Proposals", "Proposer", "is_proposed", "propose", "proposed_in"]

Field = NDArray[np.float32]
Px = tuple[int, int, int, int]

#: Blurs between which a defect stands out, standard deviations in px.
_FINE, _WIDE = 0.8, 12.0
#: Cells a side on which views that differ are compared; px by which a place may be off.
_CELLS, _OFF = 48, 2
#: Percentile of the good images at a place, and of their extremes over all places.
_USUAL, _EXTREME = 80, 70
#: Share of a defect's own contrast from which its px are proposed.
_HALF = 0.45
#: Px of a piece at least; less is noise. Px from its middle to its rim up to which it is thin.
_LEAST, _THIN = 6, 2.0
#: Fill px that touch, corners too, and no lower than said, in a mask.
_FILL = 8 | 1 << 8 | cv2.FLOODFILL_FIXED_RANGE | cv2.FLOODFILL_MASK_ONLY
#: Good images that are looked at.
_LOOKED_AT = 200
_KEY = "defectrt-proposed"
#: Layouts with one mask an image.
_LAYOUTS = (MVTEC, PAIRS, FOLDERS)
_ADVICE = "mend this and run the same command again"


class Proposer:
    """Knows what good images look like, and proposes what is different in another."""

    def __init__(self, good: Iterable[Bits]) -> None:
        """From good images [H,W,C]; the more, the fewer false proposals."""
        fields = [_deviation(image) for image in good]
        if not fields:
            raise InputError("there are no good images to compare with")
        self._shape = fields[0].shape
        if any(field.shape != self._shape for field in fields):
            self._shape = (_CELLS, _CELLS)
        maps = np.stack([_resized(field, self._shape) for field in fields])
        self._usual = np.median(maps, axis=0).astype(np.float32)
        self._spread = [self._spread_of(fields, sign) for sign in (-1, 1)]
        tops = [[away.max() for away in self._away(field)] for field in fields]
        self._limit = np.percentile(tops, _EXTREME, axis=0)

    def __call__(self, image: Bits, boxes: Sequence[Px] = ()) -> Mask:
        """The mask [H,W] for an image [H,W,C], maybe empty.

        In ``boxes`` (top, left, bottom, right) something is there, and elsewhere nothing.
        """
        both = self._away(_deviation(image))
        mask = np.zeros(both[0].shape, bool)
        for top, left, bottom, right in boxes:
            parts = [away[top:bottom, left:right] for away in both]
            strongest = max(parts, key=lambda part: float(np.percentile(part, 95)))
            mask[top:bottom, left:right] |= _from_half(strongest, _HALF * float(strongest.max()))
        if not boxes:
            # beside a dark defect its surroundings look bright, and are no defect
            least = _HALF * max(float(away.max()) for away in both)
            for away, limit in zip(both, self._limit, strict=True):
                mask |= _from_half(away, max(float(limit), least))
        return mask

    def _away(self, deviation: Field) -> tuple[Field, Field]:
        """How much darker and brighter than usual, in units of what is usual at the place."""
        shape = (deviation.shape[0], deviation.shape[1])
        away = deviation - _resized(self._usual, shape)
        dark, bright = (_resized(spread, shape) for spread in self._spread)
        return np.maximum(-away, 0) / dark, np.maximum(away, 0) / bright

    def _spread_of(self, fields: Sequence[Field], sign: int) -> Field:
        away = (np.maximum(sign * (f - _resized(self._usual, f.shape)), 0) for f in fields)
        size = np.ones((2 * _OFF + 1,) * 2)
        widened = (np.asarray(cv2.dilate(one, size), np.float32) for one in away)
        maps = np.stack([_resized(one, self._shape) for one in widened])
        usual = np.percentile(maps, _USUAL, axis=0).astype(np.float32)
        floor = np.maximum(usual, max(float(np.median(usual)), 1e-3))
        return np.asarray(cv2.GaussianBlur(floor, (0, 0), 1.0), np.float32)


@dataclass
class Proposals:
    """What became of the images that had no mask, by name: a mask, or nothing that stands out."""

    proposed: list[str] = field(default_factory=list)
    nothing: list[str] = field(default_factory=list)


def propose(
    folder: Path, good: Sequence[Sample], *, layout: str | None = None, quiet: bool = True
) -> Proposals:
    """Write a mask for every defective image below ``folder`` that has none.

    Good images are ``good``, or else those that lie in the folder by their names or its
    annotations. A mask is called NAME_mask.png and lies where the layout wants it, by default
    beside the image, and in the folder ``proposed`` where boxes stand in files of annotations. A
    file NAME.txt beside an image, in YOLO's format, holds boxes around its defects. What is drawn
    otherwise is in the mask as it is. Masks that are there stay as they are, and so do datasets
    with several masks an image. Raises `InputError` for images or boxes that cannot be read.
    """
    wanted, own = _without_masks(folder, layout)
    found = Proposals()
    if not wanted:
        return found
    goods = (sample.image for sample in good[:_LOOKED_AT])
    proposer = Proposer(goods if good else map(read_image, islice(own, _LOOKED_AT)))
    with Progress(len(wanted), "propose masks", quiet=quiet) as progress:
        for done, (item, target) in enumerate(wanted, 1):
            image = read_image(item.path)
            mask = _proposed(proposer, item, image)
            if mask.any():
                target.parent.mkdir(parents=True, exist_ok=True)
                write_whole(target, _png(mask), advice=_ADVICE)
            told = item.path.relative_to(folder).as_posix()
            (found.proposed if mask.any() else found.nothing).append(told)
            progress.update(done)
    return found


def proposed_in(folder: Path, layout: str | None = None) -> frozenset[Path]:
    """The images of a dataset, or beside their masks, whose masks are as they were proposed."""
    try:
        known, tree = find_layout(folder, layout)
    except InputError:
        pairs = ((folder / p.image, p.mask) for p in Tree.of(folder).names.pairs())
        return frozenset(image for image, mask in pairs if mask and is_proposed(folder / mask))
    return frozenset(i.path for i in known.list(tree).items if any(map(is_proposed, i.masks)))


def is_proposed(path: Path) -> bool:
    """Whether a mask's file was proposed, and nobody has changed it since."""
    try:
        with Image.open(path, formats=("PNG",)) as picture:
            said = picture.info.get(_KEY)
            return said is not None and said == _digest(np.asarray(picture) > 0)
    except (OSError, ValueError):
        return False


#: An image without a mask, and where that will lie.
_Wanted = tuple[Item, Path]


def _without_masks(folder: Path, layout: str | None) -> tuple[list[_Wanted], Iterable[Path]]:
    """The defective images of a dataset in a folder that have no mask, and its good ones."""
    try:
        known, tree = find_layout(folder, layout)
    except InputError:
        tree = Tree.of(folder)
        pairs = [pair for pair in tree.names.pairs() if not pair.mask and not pair.fault]
        named = [p.image for p in pairs if not _is_good(p.image) and not _is_a_mask(p.image)]
        lacking = [Item(tree.root / image, str(image), "") for image in named]
        return _with_boxes_beside(tree, lacking), _good_by_name(tree)
    items = known.list(tree).items
    lacking = [item for item in items if item.fault and item.fault.startswith(NO_MASK)]
    if known.annotated:
        good = [item.path for item in items if item.defect_type == GOOD and not item.fault]
        return [(i, tree.root / proposal_of(PurePosixPath(i.name))) for i in lacking], good
    return _with_boxes_beside(tree, lacking if known in _LAYOUTS else []), _good_by_name(tree)


def _good_by_name(tree: Tree) -> Iterable[Path]:
    return (tree.root / name for name in tree.images if _is_good(name))


def _with_boxes_beside(tree: Tree, items: Sequence[Item]) -> list[_Wanted]:
    """Images with the boxes that stand in files NAME.txt beside them."""
    return [
        (
            replace(item, shapes=tuple(shape for _, shape in read_lines(text)))
            if text.is_file()
            else item,
            tree.root / _mask_of(tree, PurePosixPath(item.name)),
        )
        for item in items
        for text in [item.path.with_suffix(".txt")]
    ]


def _proposed(proposer: Proposer, item: Item, image: Bits) -> Mask:
    """What is drawn, and what stands out in boxes; without either, what stands out at all."""
    size = image.shape[0], image.shape[1]
    try:
        boxes = [shape.within(size) for shape in item.shapes if isinstance(shape, Box)]
    except InputError as fault:
        raise InputError(f"{item.path}: {fault}") from None
    drawn = drawn_mask(item, size)
    return drawn | proposer(image, boxes) if boxes or not item.shapes else drawn


def _is_a_mask(image: PurePosixPath) -> bool:
    folders = {part.lower() for part in image.parts[:-1]}
    return bool(folders & MASK_FOLDERS) or image.stem.endswith("_mask")


def _is_good(image: PurePosixPath) -> bool:
    folders = [part for part in image.parts[:-1] if part.lower() not in SUBSETS]
    return any(defect_type_of(part) == GOOD for part in folders)


def _mask_of(tree: Tree, image: PurePosixPath) -> PurePosixPath:
    name = f"{image.stem}_mask.png"
    twins = tree.names.twins_above(image.parent)
    if twins and image.is_relative_to(twins.images):
        return twins.masks / image.relative_to(twins.images).with_name(name)
    if len(image.parts) == 3 and image.parts[0] == "test" and "train" in tree.subfolders():
        return PurePosixPath("ground_truth", image.parts[1], name)
    return image.with_name(name)


def _deviation(image: Bits) -> Field:
    """How much brighter a px is than its surroundings, as a share of the median: [H,W]."""
    grey = brightness(image)
    grey /= max(float(np.median(grey)), 1e-3)
    fine, wide = (cv2.GaussianBlur(grey, (0, 0), sigma) for sigma in (_FINE, _WIDE))
    return np.asarray(fine - wide, np.float32)


def _resized(values: Field, shape: tuple[int, ...]) -> Field:
    if values.shape == shape:
        return values
    return np.asarray(cv2.resize(values, (shape[1], shape[0])), np.float32)


def _from_half(away: Field, limit: float) -> Mask:
    """Every piece that reaches the limit, as far as it has half of its own strongest px.

    Pieces are filled from their strongest px on, so that each costs its own size, and by rank:
    differences of whole numbers are exact.
    """
    limit = max(limit, 1e-6)
    mask, filled = np.zeros(away.shape, bool), np.zeros(np.add(away.shape, 2), np.uint8)
    inner, ranks = filled[1:-1, 1:-1], np.zeros(away.shape, np.int32)
    high = away > _HALF * limit / 2
    levels, places = np.unique(away[high], return_inverse=True)
    ranks[high] = places + 1
    seeds = np.argwhere(away >= limit)
    for y, x in seeds[np.argsort(-away[tuple(seeds.T)], kind="stable")].tolist():
        if mask[y, x]:
            continue
        least = 1 + np.searchsorted(levels, _HALF * away[y, x], side="right")
        size, *_, (left, top, width, height) = cv2.floodFill(
            ranks, filled, (x, y), 0, float(ranks[y, x] - least), len(levels), _FILL
        )
        box = np.s_[max(0, top - 1) : top + height + 1, max(0, left - 1) : left + width + 1]
        if size >= _LEAST:
            mask[box] |= _drawn_around(inner[box] > 0)
        inner[box] = 0
    return mask


def _drawn_around(piece: Mask) -> Mask:
    """What is thin, a px wider: as it is marked by hand."""
    padded = np.pad(piece, 1).astype(np.uint8)
    if cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE).max() > _THIN:
        return piece
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    return np.asarray(cv2.dilate(piece.astype(np.uint8), cross) > 0)


def _png(mask: Mask) -> bytes:
    info, file = PngImagePlugin.PngInfo(), BytesIO()
    info.add_text(_KEY, _digest(mask))
    Image.fromarray(mask.astype(np.uint8) * 255).save(file, "png", pnginfo=info)
    return file.getvalue()


def _digest(mask: Mask) -> str:
    return hashlib.sha256(f"{mask.shape}".encode() + np.packbits(mask).tobytes()).hexdigest()
