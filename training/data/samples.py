"""Samples to train on: an image and where its defect is, decoded when they are needed."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from defectrt.errors import InputError
from defectrt.files import sha256_of
from defectrt.images.reading import image_size, read_image
from defectrt.images.types import Bits, Mask, without_alpha
from defectrt.masks.reading import MaskRule, from_value, read_masks, unsmeared

from .layouts import GOOD, Item, Tree

__all__ = [
    "GOOD",
    "Cache",
    "Sample",
    "Stored",
    "check_item",
    "checked",
    "mask_of",
    "read_good",
    "read_pairs",
    "stored",
]


@dataclass(frozen=True, eq=False)
class Sample:
    """One image and where its defect is.

    image [H,W,3] uint8 or uint16, RGB; mask [H,W] bool, all False in a good image.
    """

    path: Path
    defect_type: str
    image: Bits
    mask: Mask

    def sha256(self) -> str:
        """Hash of the image file, for provenance."""
        return sha256_of(self.path)


Decoded = tuple[Bits, Mask]


class Cache:
    """The images that were used last, up to ``limit`` bytes of them; for any thread.

    The very last one is kept whatever its size.
    """

    def __init__(self, limit: int = 1 << 30) -> None:
        """Nothing is kept yet."""
        self._limit, self._bytes = limit, 0
        self._kept: OrderedDict[Path, Decoded] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Path, read: Callable[[], Decoded]) -> Decoded:
        """What was kept under ``key``, or else what ``read`` returns."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        decoded = read()
        with self._lock:
            if key not in self._kept:
                self._kept[key] = decoded
                self._bytes += _bytes(decoded)
            while self._bytes > self._limit and len(self._kept) > 1:
                self._bytes -= _bytes(self._kept.popitem(last=False)[1])
        return decoded


class Stored(Sample):
    """A sample on disk, decoded when it is looked at. Reading raises `InputError`."""

    _decode: Callable[[], Decoded]

    def __init__(
        self, path: Path, defect_type: str, read: Callable[[], Decoded], cache: Cache
    ) -> None:
        """``read`` decodes the image and the mask; ``cache`` is shared among samples."""
        object.__setattr__(self, "path", path)
        object.__setattr__(self, "defect_type", defect_type)
        object.__setattr__(self, "_decode", lambda: cache.get(path, read))

    @property
    def image(self) -> Bits:
        """[H,W,3] uint8 or uint16, RGB; not to be written to."""
        return self._decode()[0]

    @property
    def mask(self) -> Mask:
        """[H,W] bool; not to be written to."""
        return self._decode()[1]

    def sha256(self) -> str:
        """Hash of the image file, read once."""
        return self._sha256

    @cached_property
    def _sha256(self) -> str:
        return super().sha256()


def stored(item: Item, rule: MaskRule, cache: Cache) -> Stored:
    """The sample of an item of a dataset."""

    def read() -> Decoded:
        image = _rgb(read_image(item.path))
        return image, mask_of(item, rule, (image.shape[0], image.shape[1]))

    return Stored(item.path, item.defect_type, read, cache)


def check_item(item: Item, rule: MaskRule) -> None:
    """Raise `InputError` if an item cannot be used, by its header and its masks.

    The image itself is not decoded; a damaged one is found by ``defectrt data inspect``.
    """
    if item.fault:
        raise InputError(f"{item.path}: {item.fault}")
    mask_of(item, rule, image_size(item.path))


def mask_of(item: Item, rule: MaskRule, size: tuple[int, int]) -> Mask:
    """The mask of an item whose image is of ``size`` (H, W); all False for a good image.

    Raises `InputError` as `defectrt.masks.reading.read_masks` does.
    """
    return read_masks(item.masks, size, rule) if item.masks else np.zeros(size, bool)


def read_pairs(
    directory: Path, defect_type: str, *, mask_threshold: int | None = None
) -> list[Sample]:
    """The defects of one type: every image in ``directory`` and below, each with a mask.

    Masks lie beside their images or in a folder of masks beside theirs, see
    `defectrt.masks.pairing`; what is defect in them, `defectrt.masks.reading` says, or else every
    value from ``mask_threshold`` on. Raises `InputError` listing every image that cannot be used.
    """
    tree = Tree.of(directory)
    items = [tree.item_of(pair, defect_type) for pair in tree.names.pairs()]
    if not items:
        raise InputError(f"{directory}: no images with masks; expected name.jpg beside name.png")
    return checked(
        sorted(items, key=lambda item: item.name),
        unsmeared if mask_threshold is None else from_value(mask_threshold),
    )


def read_good(directory: Path) -> list[Sample]:
    """Good images: all in ``directory`` and below, by name; masks there are not looked at."""
    tree = Tree.of(directory)
    items = [tree.item_of(pair, GOOD) for pair in tree.names.pairs()]
    if not items:
        raise InputError(f"{directory}: no images")
    return checked(sorted(items, key=lambda item: item.name), unsmeared)


def checked(items: Sequence[Item], rule: MaskRule, cache: Cache | None = None) -> list[Sample]:
    """Samples of items; raises `InputError` listing every item that cannot be used."""
    faults = []
    for item in items:
        try:
            check_item(item, rule)
        except InputError as fault:
            faults.append(str(fault))
    if faults:
        raise InputError("\n".join(faults))
    cache = cache or Cache()
    return [stored(item, rule, cache) for item in items]


def _rgb(image: Bits) -> Bits:
    """[H,W,C] -> [H,W,3], without alpha; grey is a view that repeats its channel."""
    colour: Any = without_alpha(image)
    return np.broadcast_to(colour, (*colour.shape[:2], 3))


def _bytes(decoded: Decoded) -> int:
    return sum(a.nbytes if a.base is None else a.base.nbytes for a in decoded)
