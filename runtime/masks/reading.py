"""Masks from files and arrays: the one place that says which pixels of a mask are defect.

Every value but 0 is defect: several datasets encode classes in small or in neighbouring numbers,
so nothing is thresholded in the middle of the range. Values that were smeared, by resampling or
by a lossy codec, count from half their maximum on: the fringe would make a crack half as wide
again. Palettes and colours count by their brightest channel, alpha does not. A layout of a
dataset may have another rule, see `MaskRule`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import InputError
from ..images.reading import is_jpeg, read_image
from ..images.types import Mask, channel_max, has_alpha, without_alpha

__all__ = [
    "MaskRule",
    "MaskValues",
    "as_mask",
    "from_value",
    "given_mask",
    "mask_values",
    "not_zero",
    "read_any_mask",
    "read_mask",
    "read_masks",
    "read_region",
    "smeared",
    "unsmeared",
]

#: Smeared values are more than this many besides 0, and go up to above `_HIGHEST_CLASS`.
_MOST_CLASSES = 4
_HIGHEST_CLASS = 32


class MaskValues(NamedTuple):
    """What a mask holds: whole numbers [H,W], and whether a lossy codec stored them."""

    values: NDArray[Any]
    lossy: bool = False


#: What a mask holds to what is defect [H,W]. Raises `InputError` for values that mean nothing.
MaskRule: TypeAlias = Callable[[MaskValues], Mask]


def not_zero(stored: MaskValues) -> Mask:
    """Every value but 0."""
    return np.asarray(stored.values != 0)


def from_value(threshold: int) -> MaskRule:
    """Every value from ``threshold`` on."""
    return lambda stored: np.asarray(stored.values >= threshold)


def smeared(stored: MaskValues) -> bool:
    """Stored by a lossy codec, or more than four values besides 0, up to above 32."""
    if stored.lossy:
        return True
    if stored.values.max(initial=0) <= _HIGHEST_CLASS:
        return False
    return bool(np.count_nonzero(np.unique(stored.values)) > _MOST_CLASSES)


def unsmeared(stored: MaskValues) -> Mask:
    """The rule of every mask of which nothing else is said.

    Every value but 0; from half the maximum on if the mask is `smeared`.
    """
    if not smeared(stored):
        return not_zero(stored)
    half = (int(stored.values.max()) + 1) // 2
    return np.asarray(stored.values >= max(half, 1))


def mask_values(path: Path) -> MaskValues:
    """The values of a mask file: the brightest of its colour channels, without alpha.

    JPEG is known by its content. Raises `InputError` for what `read_image` refuses, and for a
    mask that is drawn in its transparency alone.
    """
    image = read_image(path)
    values = channel_max(without_alpha(image))
    if has_alpha(image) and _varies(image[..., -1]) and not _varies(without_alpha(image)):
        raise InputError(
            f"{path}: only the transparency of the mask varies, and it does not count; save the "
            "mask as grey, 0 where there is no defect"
        )
    return MaskValues(values, is_jpeg(path))


def read_any_mask(path: Path, rule: MaskRule = unsmeared) -> Mask:
    """Read a mask [H,W] of any size, maybe empty; raises `InputError` if it has no background."""
    mask = _defect(mask_values(path), rule, path)
    _check_background(mask, str(path))
    return mask


def read_mask(path: Path, size: tuple[int, int], rule: MaskRule = unsmeared) -> Mask:
    """Read the mask of an image of ``size`` (H, W); what is defect, ``rule`` says.

    Raises `InputError` for another size, and for a mask that is empty or has no background.
    """
    return read_masks([path], size, rule)


def read_masks(paths: Sequence[Path], size: tuple[int, int], rule: MaskRule = unsmeared) -> Mask:
    """The mask of an image of ``size`` (H, W) from one or more files, their defects together.

    Raises as `read_mask` does; one of several may be empty.
    """
    mask = np.zeros(size, bool)
    for path in paths:
        mask |= _sized(path, size, rule)
    _check_defect(mask, str(paths[0]))
    _check_background(mask, str(paths[0]))
    return mask


def read_region(path: Path, size: tuple[int, int]) -> Mask:
    """Read where a defect may be, like a mask; all of the image may be.

    Raises `InputError` for another size or an empty region.
    """
    region = _sized(path, size, unsmeared)
    if not region.any():
        raise InputError(
            f"{path}: the region is empty; leave it out, or mark it in any value but 0"
        )
    return region


def as_mask(given: ArrayLike, size: tuple[int, int], what: str) -> Mask:
    """A mask of an image of ``size`` (H, W) from an array, by the same rule as a file's.

    ``what`` is named in errors. Raises `InputError` for another size; for numbers that are no
    mask: below 0, not a number, or fractions, such as probabilities, of which nobody has said
    from where on they are defect; for a mask that is empty or has no background.
    """
    array = np.asarray(given)
    if array.shape != size or array.dtype.kind not in "biuf":
        raise InputError(
            f"{what}: the mask is {list(array.shape)} of {array.dtype}, its image {list(size)}"
        )
    if array.dtype.kind == "f" and not np.isin(array, (0, 1)).all():
        raise InputError(
            f"{what}: a mask of {array.dtype} may hold 0 and 1 alone; apply a threshold first"
        )
    if array.dtype.kind == "i" and (array < 0).any():
        raise InputError(f"{what}: the mask holds numbers below 0, which mean nothing")
    mask = unsmeared(MaskValues(array))
    _check_defect(mask, what)
    _check_background(mask, what)
    return mask


def given_mask(given: ArrayLike | str | PathLike[str], size: tuple[int, int], what: str) -> Mask:
    """A mask of an image of ``size`` (H, W): a file's path, see `read_mask`, or see `as_mask`."""
    if isinstance(given, str | PathLike):
        return read_mask(Path(given), size)
    return as_mask(given, size, what)


def _varies(values: NDArray[Any]) -> bool:
    return bool((values != values[0, 0]).any())


def _defect(stored: MaskValues, rule: MaskRule, path: Path) -> Mask:
    try:
        return rule(stored)
    except InputError as fault:
        raise InputError(f"{path}: {fault}") from None


def _sized(path: Path, size: tuple[int, int], rule: MaskRule) -> Mask:
    stored = mask_values(path)
    found = stored.values.shape
    if found != size:
        turned = (
            "; if EXIF turns the image, the mask has to be turned as well"
            if found == size[::-1]
            else ""
        )
        raise InputError(
            f"{path}: the mask is {found[1]}x{found[0]}, its image {size[1]}x{size[0]}{turned}"
        )
    return _defect(stored, rule, path)


def _check_defect(mask: Mask, what: str) -> None:
    if not mask.any():
        raise InputError(f"{what}: the mask is empty; is the image a good one?")


def _check_background(mask: Mask, what: str) -> None:
    if mask.all():
        raise InputError(
            f"{what}: the mask covers everything, so there is no background; is it a mask?"
        )
