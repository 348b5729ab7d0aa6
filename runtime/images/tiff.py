"""TIFF as cameras and scanners write it: 16 bits a channel, channels together or plane by plane.

Grey, RGB or CMYK, with or without alpha, in strips or tiles, in every compression libtiff knows.

Pillow cuts 16-bit colour to 8 bits and mixes up separate planes. It unpacks grey of 16 bits well,
however, so the samples are presented to it as wide grey images of some rows each, with a
directory of our own beside the same strips; what they mean is settled here. "TIFF, Revision 6.0",
Adobe, 1992.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import TiffImagePlugin as Tiff

from ..errors import InputError

__all__ = ["TiffInfo", "read_info", "read_samples"]

Samples = NDArray[np.uint8] | NDArray[np.uint16]
_Tags = dict[int, tuple[int, ...]]
#: Offset and length of a strip or tile in the file.
_Block = tuple[int, int]

_PREDICTOR, _PLANAR, _LONG = 317, 284, 4
_STRIPS, _TILES = (Tiff.STRIPOFFSETS, Tiff.STRIPBYTECOUNTS), (Tiff.TILEOFFSETS, Tiff.TILEBYTECOUNTS)
#: What the presented image shares with the stored one.
_SHARED = (Tiff.COMPRESSION, Tiff.FILLORDER)
_RAW, _DIFFERENCES = 1, 2
#: Samples that are unpacked at once, and the most that can be: Pillow's own limit is a bit higher.
_BAND, _LARGEST = 1 << 25, 170_000_000
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
    """Decode to [H,W,C], C as in `defectrt.images.types.Bits`, not turned; CMYK becomes RGB.

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
    blocks = _blocks(info)
    if not info.apart or info.channels == 1:
        samples = _unpack(data, info, info.channels, blocks)
        return samples.reshape(info.height, info.width, info.channels)
    each = len(blocks) // info.channels
    planes = np.empty((info.height, info.width, info.channels), f"u{info.bits // 8}")
    for c in range(info.channels):
        planes[..., c] = _unpack(data, info, 1, blocks[c * each : (c + 1) * each])
    return planes


def _blocks(info: TiffInfo) -> list[_Block]:
    """Offset and length of every strip or tile, in the file."""
    tags = _TILES if Tiff.TILEOFFSETS in info.directory else _STRIPS
    return list(zip(*(_all(info.directory[tag]) for tag in tags), strict=True))


def _unpack(data: bytes, info: TiffInfo, samples: int, blocks: list[_Block]) -> Samples:
    """Strips or tiles of ``samples`` a pixel as one array [H,W·samples], a few rows at a time."""
    grid = _grid(info, info.width * samples, samples, blocks)
    array: Samples = np.empty((info.height, grid.width), f"u{info.bits // 8}")
    step = max(1, _BAND // (grid.width * grid.rows)) * grid.rows
    for row in range(0, info.height, step):
        band = array[row : row + step]
        file = _present(data, info, grid, row, len(band))
        with Tiff.TiffImageFile(io.BytesIO(file)) as image:
            band[:] = np.asarray(image)
    if info.directory.get(_PREDICTOR, 1) == _DIFFERENCES:
        _undo_differences(array, samples, grid.run)
    return array


@dataclass(frozen=True)
class _Grid:
    """How rows of ``width`` samples are cut: strips or tiles of ``rows``, ``run`` samples wide."""

    width: int
    rows: int
    run: int
    tiled: bool
    blocks: list[_Block]


def _grid(info: TiffInfo, width: int, samples: int, blocks: list[_Block]) -> _Grid:
    stored = info.directory
    if Tiff.TILEOFFSETS in stored:
        rows, run = int(stored[Tiff.TILELENGTH]), int(stored[Tiff.TILEWIDTH]) * samples
    else:
        rows, run = min(int(stored.get(Tiff.ROWSPERSTRIP, info.height)), info.height), width
        if stored.get(Tiff.COMPRESSION, _RAW) == _RAW:
            rows, blocks = _cut(blocks, rows, width * info.bits // 8, max(1, _BAND // width))
    if rows * (width + run) > _LARGEST:
        raise InputError("is packed in one piece that is too large to unpack; save it in strips")
    return _Grid(width, rows, run, Tiff.TILEOFFSETS in stored, blocks)


def _present(data: bytes, info: TiffInfo, grid: _Grid, row: int, height: int) -> bytes:
    """A file of its own for ``height`` rows from ``row`` on, which starts a strip or tile."""
    tags: _Tags = {tag: _all(info.directory[tag]) for tag in _SHARED if tag in info.directory}
    tags |= {Tiff.IMAGEWIDTH: (grid.width,), Tiff.IMAGELENGTH: (height,)}
    tags |= {Tiff.BITSPERSAMPLE: (info.bits,), Tiff.SAMPLESPERPIXEL: (1,)}
    tags |= {Tiff.PHOTOMETRIC_INTERPRETATION: (_GREY,)}
    if grid.tiled:
        tags |= {Tiff.TILEWIDTH: (grid.run,), Tiff.TILELENGTH: (grid.rows,)}
    else:
        tags |= {Tiff.ROWSPERSTRIP: (grid.rows,)}
    across = -(-grid.width // grid.run)
    part = slice(row // grid.rows * across, -(-(row + height) // grid.rows) * across)
    most = 2 * grid.rows * grid.run * info.bits // 8 + 4096  # more is no compression but damage
    packed = [data[start : start + min(size, most)] for start, size in grid.blocks[part]]
    return _file(data[:2], tags, _TILES if grid.tiled else _STRIPS, packed)


def _cut(blocks: list[_Block], rows: int, row_bytes: int, most: int) -> tuple[int, list[_Block]]:
    """Strips that are not compressed, cut into strips of at most ``most`` rows each."""
    if rows <= most:
        return rows, blocks
    fewer = next(n for n in range(min(rows, most), 0, -1) if rows % n == 0 or len(blocks) == 1)
    each = fewer * row_bytes
    return fewer, [
        (start + k * row_bytes, each) for start, _ in blocks for k in range(0, rows, fewer)
    ]


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


def _file(start: bytes, tags: _Tags, where: tuple[int, int], packed: list[bytes]) -> bytes:
    """A classic TIFF of the byte order that ``start`` names, of strips or tiles as they are."""
    order = "<" if start == b"II" else ">"
    sizes = tuple(map(len, packed))
    offsets = tuple(8 + before for before in accumulate(sizes, initial=0))
    tags = tags | dict(zip(where, (offsets[:-1], sizes), strict=True))
    end = offsets[-1] + offsets[-1] % 2
    values_at = end + 2 + 12 * len(tags) + 4
    entries, values = [struct.pack(f"{order}H", len(tags))], b""
    for tag, numbers in sorted(tags.items()):
        raw = struct.pack(f"{order}{len(numbers)}L", *numbers)
        if len(numbers) > 1:
            raw, values = struct.pack(f"{order}L", values_at + len(values)), values + raw
        entries.append(struct.pack(f"{order}HHL", tag, _LONG, len(numbers)) + raw)
    header = start + struct.pack(f"{order}HL", 42, end)
    padding = b"\0" * (end - offsets[-1])
    return b"".join([header, *packed, padding, *entries, b"\0" * 4, values])


def _all(value: Any) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,)
