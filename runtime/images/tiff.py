"""TIFF that Pillow would not read whole: 16 bits a channel, or grey and alpha plane by plane.

OpenCV reads the plain ones exactly: 16-bit grey, RGB and RGB with alpha, channels together, packed
as baseline TIFF packs. All others need tifffile and imagecodecs, the extra ``[tiff]``, since
OpenCV returns wrong pixels for separate planes without a word. "TIFF, Revision 6.0", Adobe, 1992.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags
from PIL import TiffImagePlugin as Tiff

from ..errors import InputError
from ..extras import requires

__all__ = ["TiffInfo", "orient", "read_info", "read_samples"]

Samples = NDArray[np.uint8] | NDArray[np.uint16]

_PREDICTOR, _PLANAR = 317, 284
_PLAIN_PACKING = {1, 5, 8, 32773, 32946}  # none, LZW, deflate, PackBits, deflate by its old number
_PACKING = _PLAIN_PACKING | {34925, 50000}  # LZMA, Zstandard: all unpack to no more than asked for
_AS_IT_IS, _DIFFERENCES = 1, 2
_WHITE_IS_ZERO, _GREY, _RGB, _CMYK = 0, 1, 2, 5
_COLOURS = {_WHITE_IS_ZERO: 1, _GREY: 1, _RGB: 3, _CMYK: 4}
_FORMATS = {2: "signed", 3: "floating-point", 5: "complex", 6: "complex"}
#: Bytes of a number by the code of its type, and the codes of bytes themselves.
_SIZES = np.array([0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 8, 8])
_BYTES = (1, 2, 6, 7)
#: Numbers in a tag: offsets of strips, say, of which readers make objects.
_MOST_NUMBERS = 1 << 21
#: Rows whose channels are changed at once.
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
    def tile(self) -> tuple[int, int]:
        """Width and height of its tiles, which may be larger than itself; 0 for strips."""
        get = self.directory.get
        return int(get(Tiff.TILEWIDTH, 0)), int(get(Tiff.TILELENGTH, 0))

    @property
    def packing(self) -> tuple[int, int]:
        """Codes of compression and predictor."""
        get = self.directory.get
        return int(get(Tiff.COMPRESSION, _AS_IT_IS)), int(get(_PREDICTOR, _AS_IT_IS))

    @property
    def is_ours(self) -> bool:
        """Whether Pillow would not read it whole."""
        return self.bits == 16 or (self.apart and self.channels == 2)

    @property
    def is_plain(self) -> bool:
        """Whether OpenCV reads it exactly."""
        together = not self.apart or self.channels == 1
        known = self.channels in (1, 3, 4) and self.photometric != _CMYK
        return self.bits == 16 and together and known and self.packing[0] in _PLAIN_PACKING


def read_info(data: bytes) -> TiffInfo | None:
    """The first directory; None if this is no TIFF.

    Raises `InputError` for samples that are not whole numbers of up to 16 bits, all alike, and for
    a directory that readers would not agree on or that asks for more memory than the file is long.
    """
    if data[:4] not in Tiff.PREFIXES:
        return None
    file = io.BytesIO(data)
    directory = Tiff.ImageFileDirectory_v2(file.read(16 if 43 in data[2:4] else 8))
    start = directory.next
    _check_entries(data, start)
    file.seek(start)
    directory.load(file)
    if directory.next == start:  # Pillow gave up on it half-way
        raise InputError("damaged or truncated")
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


def _check_entries(data: bytes, start: int) -> None:
    """Refuse a tag that stands twice, since readers differ in which they take, and endless ones."""
    order, wide = "<" if data[:1] == b"I" else ">", 43 in data[2:4]
    counted = np.frombuffer(data, f"{order}u{8 if wide else 2}", 1, start)
    number = f"{order}u{8 if wide else 4}"
    entry = [("tag", f"{order}u2"), ("type", f"{order}u2"), ("count", number), ("value", number)]
    entries = np.frombuffer(data, entry, int(counted[0]), start + counted.nbytes)
    counts = entries["count"].astype(float)
    sizes = counts * _SIZES[np.where(entries["type"] < len(_SIZES), entries["type"], 0)]
    if len(np.unique(entries["tag"])) < len(entries) or sizes.sum() > len(data):
        raise InputError("damaged or truncated (its directory contradicts itself)")
    if (counts[~np.isin(entries["type"], _BYTES)] > _MOST_NUMBERS).any():
        raise InputError("is cut into too many pieces; save it in larger strips or tiles")


def read_samples(data: bytes, info: TiffInfo) -> Samples:
    """Decode to [H,W,C], C as in `defectrt.images.types.Bits`, turned upright; CMYK becomes RGB.

    Raises `InputError` for channels that mean something else and for damage, or whatever the
    decoder raises for it; `MissingExtraError` for what needs the extra ``[tiff]`` without it.
    """
    colours = _COLOURS.get(info.photometric, 0)
    if info.channels not in (colours, colours + 1):
        raise InputError(
            f"{info.channels} channels of colour model {info.photometric} are not supported; "
            "save it as grey, RGB or CMYK"
        )
    compression, predictor = info.packing
    if compression not in _PACKING or predictor not in (_AS_IT_IS, _DIFFERENCES):
        raise InputError(
            f"compression {compression} with predictor {predictor} is not supported for it; "
            "save it with LZW or deflate"
        )
    samples = _by_opencv(data, info) if info.is_plain else _by_tifffile(data, info)
    if info.photometric == _WHITE_IS_ZERO:
        np.subtract(np.iinfo(samples.dtype).max, samples[..., 0], out=samples[..., 0])
    return _to_light(samples) if info.photometric == _CMYK else samples


def _by_opencv(data: bytes, info: TiffInfo) -> Samples:
    """As stored, but turned."""
    array = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if array is None or array.dtype != np.uint16:
        raise InputError("damaged or truncated")
    samples = np.asarray(array.reshape(*array.shape[:2], info.channels), np.uint16)
    for row in range(0, len(samples) if info.channels > 1 else 0, _ROWS):
        part = samples[row : row + _ROWS, :, :3]
        part[:] = part[..., ::-1]
    return samples


def _by_tifffile(data: bytes, info: TiffInfo) -> Samples:
    """As stored, but turned; one strip or tile after the other, so that no more is in memory."""
    with requires("tiff"):
        import imagecodecs  # noqa: F401  # without it, tifffile unpacks next to nothing
        import tifffile
    samples: Samples = np.empty((info.height, info.width, info.channels), f"u{info.bits // 8}")
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages.first
        planes, together = (info.channels, 1) if info.apart else (1, info.channels)
        if page.shaped != (planes, 1, info.height, info.width, together):
            raise InputError("damaged or truncated (its directory contradicts itself)")
        for piece, (channel, _, y, x, _), _ in page.segments(maxworkers=1, buffersize=1 << 24):
            if piece is None:
                raise InputError("damaged or truncated (a strip or tile is missing)")
            part = samples[y : y + piece.shape[1], x : x + piece.shape[2], channel:]
            part[..., :together] = piece[0, : part.shape[0], : part.shape[1]]
    return orient(samples, info.directory.get(ExifTags.Base.Orientation, 1))


def orient(array: Samples, orientation: int) -> Samples:
    """Turn [H,W,C] by EXIF orientation 1 to 8: from 5 on the axes are swapped, then the flips."""
    if 5 <= orientation <= 8:
        array = array.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return array if array.flags.c_contiguous else array.copy()


def _to_light(ink: Samples) -> Samples:
    """CMYK, with or without alpha, to RGB: what is left of white under ink and black."""
    top = np.iinfo(ink.dtype).max
    light = np.empty((*ink.shape[:2], ink.shape[2] - 1), ink.dtype)
    light[..., 3:] = ink[..., 4:]
    for row in range(0, len(ink), _ROWS):
        part = (top - ink[row : row + _ROWS, :, :4]).astype(np.uint32)
        light[row : row + _ROWS, :, :3] = (part[..., :3] * part[..., 3:] + top // 2) // top
    return light
