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
from PIL import ExifTags, Image

from defectrt.errors import InputError
from defectrt.files import sha256_of
from defectrt.images.reading import read_image
from defectrt.images.types import MAX_PIXELS, Bits, Mask, without_alpha

from .layouts import GOOD, Item, MaskRule, from_value, mask_values

__all__ = [
    "GOOD",
    "Cache",
    "Sample",
    "Stored",
    "check_item",
    "checked",
    "image_size",
    "read_good",
    "read_mask",
    "read_pairs",
    "stored",
]

_IMAGES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff"}


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
        return image, read_mask(item, rule, image.shape[:2])

    return Stored(item.path, item.defect_type, read, cache)


def check_item(item: Item, rule: MaskRule) -> None:
    """Raise `InputError` if an item cannot be used, by its header and its masks.

    The image itself is not decoded; a damaged one is found by ``defectrt data inspect``.
    """
    if item.fault:
        raise InputError(f"{item.path}: {item.fault}")
    read_mask(item, rule, image_size(item.path))


def read_mask(item: Item, rule: MaskRule, size: tuple[int, int]) -> Mask:
    """The mask of an item whose image is of ``size`` (H, W): its files' defects together.

    All False for a good image. Raises `InputError` for another size, for values that mean
    nothing, and for a mask that is empty or leaves no background.
    """
    mask = np.zeros(size, bool)
    for path in item.masks:
        values = mask_values(path)
        if values.shape != size:
            raise InputError(f"{path}: the mask is {_size(values.shape)}, its image {_size(size)}")
        try:
            mask |= rule(values)
        except InputError as fault:
            raise InputError(f"{path}: {fault}") from None
    if item.masks and not mask.any():
        raise InputError(f"{item.masks[0]}: the mask is empty; is the image a good one?")
    if mask.all():
        raise InputError(f"{item.masks[0]}: the mask covers everything, so there is no background")
    return mask


def image_size(path: Path) -> tuple[int, int]:
    """Height and width of an image as it will be decoded, from its header."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
    except Image.DecompressionBombError as error:
        raise InputError(f"{path}: {error}") from error
    except Exception as error:  # Pillow's parsers raise whatever they stumble over
        raise InputError(f"{path}: not an image that can be read ({error})") from error
    if width * height > MAX_PIXELS:
        raise InputError(f"{path}: more than {MAX_PIXELS // 1_000_000} megapixels")
    return (width, height) if turned else (height, width)


def read_pairs(directory: Path, defect_type: str, *, mask_threshold: int = 1) -> list[Sample]:
    """The defects of one defect type, each image with a mask.

    Two layouts are recognised: ``name.jpg`` beside ``name.png`` (or ``name_mask.png``), and
    ``images/name.*`` beside ``masks/name.*``. A mask pixel of at least ``mask_threshold`` is
    defect. Raises `InputError` listing every image that cannot be used.
    """
    items = list(_pairs(directory, defect_type))
    if not items:
        raise InputError(f"{directory}: no images with masks; expected name.jpg beside name.png")
    return checked(items, from_value(mask_threshold))


def read_good(directory: Path) -> list[Sample]:
    """Good images: every image in ``directory``, sorted by name."""
    items = [Item(path, path.name, GOOD) for path in _images(directory)]
    if not items:
        raise InputError(f"{directory}: no images")
    return checked(items, from_value(1))


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


def _pairs(directory: Path, defect_type: str) -> list[Item]:
    images, masks = directory / "images", directory / "masks"
    if not (images.is_dir() and masks.is_dir()):
        images = masks = directory
    pairs = [(p, _mask_of(p, masks)) for p in _images(images)]
    taken = {mask for _, mask in pairs if mask} if images == masks else set()
    return [
        Item(p, p.name, defect_type, (mask,) if mask else (), fault=None if mask else _no_mask(p))
        for p, mask in pairs
        if p not in taken
    ]


def _no_mask(image: Path) -> str:
    return f"no mask beside it; expected {image.stem}.png"


def _images(directory: Path) -> list[Path]:
    if not directory.is_dir():
        raise InputError(f"{directory}: no such folder")
    return [p for p in sorted(directory.iterdir()) if p.suffix.lower() in _IMAGES]


def _mask_of(image: Path, masks: Path) -> Path | None:
    """Masks are PNG: anything lossy would smear their edge."""
    candidates = (masks / f"{image.stem}{suffix}" for suffix in ("_mask.png", ".png"))
    return next((p for p in candidates if p.is_file() and p != image), None)


def _rgb(image: Bits) -> Bits:
    """[H,W,C] -> [H,W,3], without alpha; grey is a view that repeats its channel."""
    colour: Any = without_alpha(image)
    return np.broadcast_to(colour, (*colour.shape[:2], 3))


def _bytes(decoded: Decoded) -> int:
    return sum(a.nbytes if a.base is None else a.base.nbytes for a in decoded)


def _size(shape: Sequence[int]) -> str:
    return f"{shape[1]}x{shape[0]}"
