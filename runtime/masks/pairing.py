"""Which file is the mask of which image, by names alone.

    a/7.jpg         a/7_mask.png    beside the image, in any format
    a/7.jpg         a/7.png         likewise, if the format suits a mask better: PNG, other lossless
                                    ones, JPEG
    images/a/7.jpg  masks/a/7.png   in a folder of masks beside the folder of images

7_mask counts before 7, and a lossless format before JPEG.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import NamedTuple

from ..errors import InputError

__all__ = ["IMAGE_FOLDERS", "MASK_FOLDERS", "Names", "Pair", "Twins"]

#: Names of folders, in lower case; they count in any.
IMAGE_FOLDERS = frozenset({"images", "image", "imgs", "img"})
MASK_FOLDERS = frozenset({"masks", "mask", "labels", "label", "ground_truth"})
_LOSSY = frozenset({".jpg", ".jpeg"})


@dataclass(frozen=True)
class Pair:
    """An image and its mask, if it has one; ``fault`` says why it cannot be told which."""

    image: PurePosixPath
    mask: PurePosixPath | None = None
    fault: str | None = None


class Twins(NamedTuple):
    """A folder that holds one folder of images and one of masks, and the two."""

    parent: PurePosixPath
    images: PurePosixPath
    masks: PurePosixPath


class Names:
    """The names of files, relative to a folder; each is an image, the mask of one, or both."""

    def __init__(self, names: Iterable[PurePosixPath]) -> None:
        """Sort the names into their folders."""
        folders: dict[PurePosixPath, list[PurePosixPath]] = defaultdict(list)
        stems: dict[PurePosixPath, list[PurePosixPath]] = defaultdict(list)
        for name in names:
            folders[name.parent].append(name)
            stems[name.parent / name.stem].append(name)
        self._folders, self._stems = dict(folders), dict(stems)
        self._twins = {twins.parent: twins for twins in self._find_twins()}

    @property
    def folders(self) -> dict[PurePosixPath, list[PurePosixPath]]:
        """The files of every folder that has some."""
        return self._folders

    @property
    def twins(self) -> Sequence[Twins]:
        """All folders of images with a folder of masks beside them."""
        return list(self._twins.values())

    def mask_in(self, folder: PurePosixPath, image: PurePosixPath) -> PurePosixPath | None:
        """The mask of an image in a folder of masks.

        Raises `InputError` if there are several whose name and format are as good.
        """
        for stem in (f"{image.stem}_mask", image.stem):
            if found := self._stems.get(folder / stem):
                best = [name for name in found if not _lossy(name)] or found
                if len(best) > 1:
                    names = ", ".join(sorted(name.name for name in best))
                    raise InputError(f"more than one mask: {names}; keep one")
                return best[0]
        return None

    def pair(self, image: PurePosixPath, folder: PurePosixPath | None) -> Pair:
        """An image and its mask in a folder of masks; without a folder it has none."""
        try:
            return Pair(image, self.mask_in(folder, image) if folder else None)
        except InputError as fault:
            return Pair(image, fault=str(fault))

    def beside(self, folder: PurePosixPath) -> list[Pair]:
        """The images of a folder, each with the mask beside it; masks are no images."""
        pairs = [self._pair_beside(name) for name in self._folders.get(folder, ())]
        masks = {pair.mask for pair in pairs}
        return [p for p in pairs if p.image not in masks and not self._is_named_mask(p.image)]

    def twins_above(self, folder: PurePosixPath) -> Twins | None:
        """The nearest folder of images and masks that a folder lies in."""
        above = (folder, *folder.parents)
        return next((self._twins[path] for path in above if path in self._twins), None)

    def parallel(self, folder: PurePosixPath) -> list[Pair] | None:
        """The images of a folder below `Twins`, each with its mask in the folder of masks.

        Empty for a folder of masks; None for one that belongs to neither.
        """
        twins = self.twins_above(folder)
        if twins and folder.is_relative_to(twins.images):
            masks = twins.masks / folder.relative_to(twins.images)
            return [self.pair(image, masks) for image in self._folders[folder]]
        return [] if twins and folder.is_relative_to(twins.masks) else None

    def pairs(self) -> Iterator[Pair]:
        """All images in either way, each with its mask."""
        for folder in self._folders:
            parallel = self.parallel(folder)
            yield from self.beside(folder) if parallel is None else parallel

    def _pair_beside(self, image: PurePosixPath) -> Pair:
        if image.parent / f"{image.stem}_mask" in self._stems:
            return self.pair(image, image.parent)
        if image.stem.endswith("_mask"):
            return Pair(image)
        same = self._stems[image.parent / image.stem]
        best = min(map(_unlike_a_mask, same))
        masks = [name for name in same if _unlike_a_mask(name) == best]
        if len(masks) > 1:
            names = ", ".join(sorted(name.name for name in same))
            return Pair(image, fault=f"which of {names} is the mask? call it {image.stem}_mask")
        return Pair(image, masks[0] if masks[0] != image else None)

    def _is_named_mask(self, name: PurePosixPath) -> bool:
        image = name.stem.removesuffix("_mask")
        return image != name.stem and name.parent / image in self._stems

    def _find_twins(self) -> Iterator[Twins]:
        children: dict[PurePosixPath, set[PurePosixPath]] = defaultdict(set)
        for folder in self._folders:
            for path in (folder, *folder.parents):
                if path.name:
                    children[path.parent].add(path)
        for parent, paths in children.items():
            images = [path for path in paths if path.name.lower() in IMAGE_FOLDERS]
            masks = [path for path in paths if path.name.lower() in MASK_FOLDERS]
            if len(images) == len(masks) == 1:
                yield Twins(parent, images[0], masks[0])


def _lossy(name: PurePosixPath) -> bool:
    return name.suffix.lower() in _LOSSY


def _unlike_a_mask(name: PurePosixPath) -> int:
    """Of files of one name the one with the lowest number is the mask."""
    return 2 if _lossy(name) else int(name.suffix.lower() != ".png")
