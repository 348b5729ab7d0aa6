"""TIFF as cameras and scanners write it: 16 bits a channel, channels together or plane by plane.

Grey, RGB or CMYK, with or without alpha, in strips or tiles, in every compression libtiff knows.

Pillow cuts 16-bit colour to 8 bits and mixes up separate planes. It unpacks grey of 16 bits well,
however, so the samples are presented to it as one wide grey picture, in a directory of our own
that points at the same strips; what they mean is settled here. "TIFF, Revision 6.0", Adobe, 1992.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import TiffImagePlugin as Tiff

from .errors import InputError

__all__ = ["TiffInfo", "read_info", "read_samples"]

Samples = NDArray[np.uint8] | NDArray[np.uint16]
_Tags = dict[int, tuple[int, ...]]

_PREDICTOR, _PLANAR, _LONG = 317, 284, 4
_STRIPS, _TILES = (Tiff.STRIPOFFSETS, Tiff.STRIPBYTECOUNTS), (Tiff.TILEOFFSETS, Tiff.TILEBYTECOUNTS)
#: What the presented picture shares with the stored one.
_SHARED = (Tiff.COMPRESSION, Tiff.FILLORDER, Tiff.IMAGELENGTH, Tiff.ROWSPERSTRIP, Tiff.TILELENGTH)
_WHITE_IS_ZERO, _GREY, _RGB, _CMYK = 0, 1, 2, 5
_COLOURS = {_WHITE_IS_ZERO: 1, _GREY: 1, _RGB: 3, _CMYK: 4}
_FORMATS = {2: "signed", 3: "floating-point", 5: "complex", 6: "complex"}
#: Rows whose ink becomes light at once.
_ROWS = 256


@dataclass(frozen=True)
class TiffInfo:
    """What a TIFF's first directory says, as far as it matters here."""

    width: int
    height: int
    bits: int
    channels: int
    photometric: int
    apart: bool
    directory: Tiff.ImageFileDirectory_v2

    @property
    def is_ours(self) -> bool:
        """Whether Pillow would not read it whole."""
        return self.bits == 16 or (self.apart and self.channels == 2)


def read_info(data: bytes) -> TiffInfo | None:
    """The first directory; None if this is no TIFF.

    Raises `InputError` for samples that are not whole numbers of up to 16 bits, all alike.
    """
    if data[:4] not in Tiff.PREFIXES:
        return None
    file = io.BytesIO(data)
    directory = Tiff.ImageFileDirectory_v2(file.read(16 if data[2] == 43 or data[3] == 43 else 8))
    file.seek(directory.next)
    directory.load(file)
    bits = directory.get(Tiff.BITSPERSAMPLE, (1,))
    formats = directory.get(Tiff.SAMPLEFORMAT, (1,))
    kinds = sorted({_FORMATS[f] for f in formats if f in _FORMATS})
    if kinds or max(bits) > 16 or min(bits) != max(bits):
        stored = "/".join(map(str, sorted(set(bits))))
        raise InputError(
            f"stores {' '.join([f'{stored}-bit', *kinds])} numbers; save it with 8 or 16 bits"
        )
    return TiffInfo(
        width=int(directory[Tiff.IMAGEWIDTH]),
        height=int(directory[Tiff.IMAGELENGTH]),
        bits=bits[0],
        channels=int(directory.get(Tiff.SAMPLESPERPIXEL, 1)),
        photometric=int(directory.get(Tiff.PHOTOMETRIC_INTERPRETATION, _GREY)),
        apart=directory.get(_PLANAR) == 2,
        directory=directory,
    )


def read_samples(data: bytes, info: TiffInfo) -> Samples:
    """Decode to [H,W,C], C as in `defectrt.images.Bits`, not turned; CMYK becomes RGB.

    Raises `InputError` for channels that mean something else, and whatever Pillow raises for
    damage.
    """
    colours = _COLOURS.get(info.photometric, 0)
    if info.channels not in (colours, colours + 1):
        raise InputError(
            f"{info.channels} channels of colour model {info.photometric} are not supported; "
            "save it as grey, RGB or CMYK"
        )
    samples = _unpack_all(data, info)
    if info.photometric == _WHITE_IS_ZERO:
        samples[..., 0] = np.iinfo(samples.dtype).max - samples[..., 0]
    return _to_light(samples) if info.photometric == _CMYK else samples


def _unpack_all(data: bytes, info: TiffInfo) -> Samples:
    tags = _TILES if Tiff.TILEOFFSETS in info.directory else _STRIPS
    offsets, counts = (_all(info.directory[tag]) for tag in tags)
    if not info.apart or info.channels == 1:
        samples = _unpack(
            data, info, info.channels, dict(zip(tags, (offsets, counts), strict=True))
        )
        return samples.reshape(info.height, info.width, info.channels)
    each = len(offsets) // info.channels
    planes = np.empty((info.height, info.width, info.channels), f"u{info.bits // 8}")
    for c in range(info.channels):
        part = slice(c * each, (c + 1) * each)
        where = dict(zip(tags, (offsets[part], counts[part]), strict=True))
        planes[..., c] = _unpack(data, info, 1, where)
    return planes


def _unpack(data: bytes, info: TiffInfo, samples: int, where: _Tags) -> Samples:
    """Strips or tiles of ``samples`` a pixel, as one array [H,W·samples]."""
    stored = info.directory
    shown = where | {tag: _all(stored[tag]) for tag in _SHARED if tag in stored}
    shown[Tiff.IMAGEWIDTH] = (info.width * samples,)
    shown[Tiff.BITSPERSAMPLE] = (info.bits,)
    shown[Tiff.SAMPLESPERPIXEL] = (1,)
    shown[Tiff.PHOTOMETRIC_INTERPRETATION] = (_GREY,)
    tile = int(stored[Tiff.TILEWIDTH]) * samples if Tiff.TILEWIDTH in stored else None
    if tile:
        shown[Tiff.TILEWIDTH] = (tile,)
    with Tiff.TiffImageFile(io.BytesIO(_present(data, shown))) as image:  # its size was checked
        array = np.array(image, f"u{info.bits // 8}")
    if array.shape != (info.height, info.width * samples):
        raise InputError("its strips or tiles are not as large as it says")
    if stored.get(_PREDICTOR, 1) == 2:
        _undo_differences(array, samples, tile or array.shape[1])
    return array


def _undo_differences(array: Samples, samples: int, run: int) -> None:
    """Add up what horizontal differencing stored, in place, anew every ``run`` samples of a row."""
    for start in range(0, array.shape[1], run):
        for c in range(samples):
            part = array[:, start + c : start + run : samples]
            np.cumsum(part, axis=1, dtype=array.dtype, out=part)


def _to_light(ink: Samples) -> Samples:
    """CMYK, with or without alpha, to RGB: what is left of white under ink and black."""
    top = np.iinfo(ink.dtype).max
    light = np.empty((*ink.shape[:2], ink.shape[2] - 1), ink.dtype)
    light[..., 3:] = ink[..., 4:]
    for row in range(0, len(ink), _ROWS):
        part = (top - ink[row : row + _ROWS, :, :4]).astype(np.uint32)
        light[row : row + _ROWS, :, :3] = (part[..., :3] * part[..., 3:] + top // 2) // top
    return light


def _present(data: bytes, tags: _Tags) -> bytes:
    """The same file behind another directory, which is classic and holds nothing but ``tags``."""
    order, end = "<" if data[:2] == b"II" else ">", len(data) + len(data) % 2
    values_at = end + 2 + 12 * len(tags) + 4
    entries, values = [struct.pack(f"{order}H", len(tags))], b""
    for tag, numbers in sorted(tags.items()):
        packed = struct.pack(f"{order}{len(numbers)}L", *numbers)
        if len(numbers) > 1:
            packed, values = struct.pack(f"{order}L", values_at + len(values)), values + packed
        entries.append(struct.pack(f"{order}HHL", tag, _LONG, len(numbers)) + packed)
    header = data[:2] + struct.pack(f"{order}HL", 42, end)
    padding = b"\0" * (end - len(data))
    return b"".join([header, memoryview(data)[8:], padding, *entries, b"\0" * 4, values])


def _all(value: Any) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,)
