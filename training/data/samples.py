"""Samples to train on: an image and where its defect is, decoded when they are needed."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from defectrt.config.names import is_name
from defectrt.errors import InputError
from defectrt.files import sha256_of
from defectrt.images.given import Picture, in_channels, read_given
from defectrt.images.reading import image_size, read_image
from defectrt.images.types import Bits, Mask, without_alpha
from defectrt.masks.reading import MaskRule, as_mask, from_value, given_mask, read_masks, unsmeared

from .layouts import GOOD, Item, Tree
from .layouts.shapes import Box

__all__ = [
    "GOOD",
    "Cache",
    "Defects",
    "Example",
    "Sample",
    "Stored",
    "check_item",
    "checked",
    "drawn_mask",
    "given_defects",
    "given_good",
    "hashes_of",
    "mask_of",
    "names_of",
    "read_good",
    "read_pairs",
    "stored",
]


#: Where a defect is: an array [H,W] or a file's path.
GivenMask: TypeAlias = ArrayLike | str | PathLike[str]
#: The type of examples that come without one.
_UNNAMED = "defect"


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


def names_of(samples: Sequence[Sample]) -> list[str]:
    """TYPE/FILE of each; of several that would be called so, TYPE/PATH."""
    short = [f"{sample.defect_type}/{sample.path.name}" for sample in samples]
    count = Counter(short)
    return [
        name if count[name] == 1 else f"{sample.defect_type}/{sample.path.as_posix()}"
        for name, sample in zip(short, samples, strict=True)
    ]


def hashes_of(samples: Sequence[Sample]) -> dict[str, str]:
    """The hash of each image file, by `names_of`."""
    return {n: s.sha256() for n, s in zip(names_of(samples), samples, strict=True)}


Decoded = tuple[Bits, Mask]


#: Arrays, kept together.
_Arrays = TypeVar("_Arrays", bound=tuple[NDArray[Any], ...])


class Cache(Generic[_Arrays]):
    """The arrays that were used last, up to ``limit`` bytes of them; for any thread.

    The very last one is kept whatever its size.
    """

    def __init__(self, limit: int = 1 << 30) -> None:
        """Nothing is kept yet."""
        self._limit, self._bytes = limit, 0
        self._kept: OrderedDict[Hashable, _Arrays] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, read: Callable[[], _Arrays]) -> _Arrays:
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
        self, path: Path, defect_type: str, read: Callable[[], Decoded], cache: Cache[Decoded]
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

    Raises `InputError` as `defectrt.masks.reading.read_masks` does, and for annotations that were
    made for another size.
    """
    if item.masks:
        return read_masks(item.masks, size, rule)
    if item.shapes:
        return as_mask(drawn_mask(item, size), size, str(item.path))
    return np.zeros(size, bool)


def drawn_mask(item: Item, size: tuple[int, int]) -> Mask:
    """What annotations draw in an image of ``size`` (H, W), boxes left out; raises as `mask_of`."""
    what = str(item.path)
    if item.drawn_for not in (None, size):
        height, width = item.drawn_for or size
        raise InputError(
            f"{what}: annotated as {width}x{height}, and the image is {size[1]}x{size[0]}; take "
            "the images that were annotated"
        )
    mask = np.zeros(size, bool)
    try:
        for shape in item.shapes:
            if not isinstance(shape, Box):
                mask |= shape.paint(size)
    except InputError as fault:
        raise InputError(f"{what}: {fault}") from None
    return mask


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


def checked(
    items: Sequence[Item], rule: MaskRule, cache: Cache[Decoded] | None = None
) -> list[Sample]:
    """Samples of items; raises `InputError` listing every item that cannot be used."""
    faults = []
    for item in items:
        try:
            check_item(item, rule)
        except InputError as fault:
            faults.append(str(fault))
    if faults:
        raise InputError("\n".join(faults))
    cache = cache or Cache[Decoded]()
    return [stored(item, rule, cache) for item in items]


#: An image with a defect, and where it is; of which type, a third may say.
Example: TypeAlias = tuple[Picture, GivenMask] | tuple[Picture, GivenMask, str]
#: Examples of one type, or of several by name.
Defects: TypeAlias = Sequence[Example] | Mapping[str, Sequence[Example]]


def given_defects(defects: Defects) -> list[Sample]:
    """Samples of images that a program holds, or of files that it names; a type's in order.

    An example without a type is of the type that its key says, or else ``defect``. Raises
    `InputError` for what is no image with a mask, and for what cannot be the name of a type.
    """
    by_name = defects if isinstance(defects, Mapping) else {_UNNAMED: defects}
    return [
        _given_defect(example, name, place)
        for name, examples in by_name.items()
        for place, example in enumerate(examples)
    ]


def given_good(good: Iterable[Picture]) -> list[Sample]:
    """Samples of good images that a program holds, or of files that it names."""
    cache = Cache[Decoded]()
    return [
        checked([Item(Path(image), str(image), GOOD)], unsmeared, cache)[0]
        if isinstance(image, str | PathLike)
        else _given(image, None, GOOD, place)
        for place, image in enumerate(good)
    ]


def _given_defect(example: Example, name: str, place: int) -> Sample:
    if not isinstance(example, tuple | list) or len(example) not in (2, 3):
        raise InputError(
            f"defects, {name} {place}: expected (image, mask) or (image, mask, type), not "
            f"{type(example).__name__}"
        )
    image, mask, *rest = example
    name = rest[0] if rest else name
    if not isinstance(name, str) or not is_name(name) or name == GOOD:
        raise InputError(f"defects, {place}: {name!r} cannot be the name of a type of defect")
    return _given(image, mask, name, place)


def _given(image: Picture, mask: GivenMask | None, name: str, place: int) -> Sample:
    """One sample; a file's name is its own, all else is named by its place."""
    what = f"{name} {place}"
    rgb = _rgb(in_channels(read_given(image, what)))
    size = rgb.shape[0], rgb.shape[1]
    where = np.zeros(size, bool) if mask is None else given_mask(mask, size, what)
    if isinstance(image, str | PathLike):
        return Sample(Path(image), name, rgb, where)
    return _Held(Path(str(place)), name, rgb, where)


class _Held(Sample):
    """A sample that lies in no file."""

    def sha256(self) -> str:
        """Hash of the image itself."""
        head = f"{self.image.dtype} {self.image.shape}\n".encode()
        return hashlib.sha256(head + self.image.tobytes()).hexdigest()


def _rgb(image: Bits) -> Bits:
    """[H,W,C] -> [H,W,3], without alpha; grey is a view that repeats its channel."""
    colour: Any = without_alpha(image)
    return np.broadcast_to(colour, (*colour.shape[:2], 3))


def _bytes(decoded: tuple[NDArray[Any], ...]) -> int:
    return sum(a.nbytes if a.base is None else a.base.nbytes for a in decoded)
