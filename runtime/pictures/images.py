"""Pictures in and out, the window the model sees, and the composite onto the original."""

from __future__ import annotations

import io
import re
import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, ImageFile, UnidentifiedImageError

from ..diffusion.rows import Floats
from ..errors import InputError, MissingExtraError
from .tiff import orient, read_info, read_samples

__all__ = [
    "MAX_PIXELS",
    "Bits",
    "Mask",
    "Pixels",
    "Window",
    "composite",
    "encode_png",
    "feather",
    "find_pictures",
    "from_model",
    "place_window",
    "read_picture",
    "to_model",
]

Mask = NDArray[np.bool_]
#: [H,W,C] uint8 or uint16; C is 1 grey, 2 grey + alpha, 3 RGB, 4 RGB + alpha.
Bits = NDArray[np.uint8] | NDArray[np.uint16]
Pixels = NDArray[np.float32]
_Word = TypeVar("_Word", np.uint8, np.uint16)

#: Larger pictures are refused before they are decoded.
MAX_PIXELS = 100_000_000
#: More than `MAX_PIXELS` of four 16-bit channels take; larger files are not read at all.
_MAX_BYTES = 1 << 30
_ALPHA = {2, 4}
_TO_BGR = {3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}
#: Rows that are copied at once.
_BAND = 256
#: Pillow's names for 16 bits a channel; BMP's "BGR;16" is 16 bits a pixel.
_DEEP_COLOUR = re.compile(r"(RGB\w?|LA|CMYK);16")
_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}


def read_picture(path: Path) -> Bits:
    """Read a picture of 8 or 16 bits a channel, EXIF orientation applied.

    Palettes become RGB and CMYK becomes RGB (by its own colour profile, if it has 8 bits and one);
    one-bit pictures become grey; transparency of any kind becomes alpha. Raises `InputError` for
    what cannot be read whole, for numbers that are not of 8 or 16 bits, for files of several
    pictures, and for pictures of more than `MAX_PIXELS`; `MissingExtraError` for a TIFF that needs
    the extra ``[tiff]`` (see `defectrt.pictures.tiff`) without it.
    """
    data = _read_bytes(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata, and of sizes we allow
            return _decode(data)
    except (InputError, MissingExtraError) as fault:
        raise type(fault)(f"{path}: {fault}") from None
    except UnidentifiedImageError as error:
        raise InputError(f"{path}: not a picture of a known format") from error
    except Exception as error:  # Pillow's parsers raise whatever they stumble over
        raise InputError(f"{path}: damaged or truncated ({error})") from error


def _read_bytes(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > _MAX_BYTES:
            raise InputError(f"{path}: larger than {_MAX_BYTES >> 30} GiB, too large for a picture")
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if not data:
        raise InputError(f"{path}: the file is empty")
    return data


def _decode(data: bytes) -> Bits:
    tiff = read_info(data)
    if tiff and tiff.is_ours:
        _check_size(tiff.width, tiff.height)
        _check_size(*tiff.tile)
        if tiff.directory.next:
            raise InputError("holds several pictures; save each in a file of its own")
        return read_samples(data, tiff)
    with _open(data) as image:
        _check_size(*image.size)
        frames = getattr(image, "n_frames", 1)
        if frames > 1 and image.format != "MPO":  # in an MPO the others are previews
            raise InputError(f"holds {frames} pictures; save each in a file of its own")
        stored = str([tile[3] for tile in image.tile])
        image.load()  # a truncated file fails here
        array = _decode_deep(data, stored) if _DEEP_COLOUR.search(stored) else _as_array(image)
        return orient(array, image.getexif().get(ExifTags.Base.Orientation, 1))


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise InputError(
            f"{width}x{height} is more than {MAX_PIXELS // 1_000_000} megapixels; "
            "cut it into smaller pictures"
        )


def _open(data: bytes) -> ImageFile.ImageFile:
    try:
        return Image.open(io.BytesIO(data))
    except Image.DecompressionBombError as error:
        raise InputError(f"more than {MAX_PIXELS // 1_000_000} megapixels ({error})") from error


def _as_array(image: Image.Image) -> Bits:
    if image.mode.startswith("I;16"):
        return _with_clear_value(_in_bands(image, np.uint16), image)
    grey = image.mode in ("1", "L")
    if image.has_transparency_data:  # a transparent palette entry or colour, or alpha already
        image = image.convert("LA" if grey or image.mode == "LA" else "RGBA")
    elif image.mode == "1":
        image = image.convert("L")
    elif image.mode == "CMYK":
        image = _to_light(image)
    elif image.mode == "P":
        image = image.convert("RGB")
    if image.mode not in ("L", "LA", "RGB", "RGBA"):
        raise InputError(f"pixel format {image.mode} is not supported; use 8 or 16 bits")
    return _in_bands(image, np.uint8)


def _in_bands(image: Image.Image, dtype: type[_Word]) -> NDArray[_Word]:
    """[H,W,C] of a picture, some rows at a time, so that it is never in memory three times."""
    width, height = image.size
    array = np.empty((height, width, len(image.getbands())), dtype)
    for row in range(0, height, _BAND):
        band = array[row : row + _BAND]
        band[:] = np.asarray(image.crop((0, row, width, row + len(band)))).reshape(band.shape)
    return array


def _with_clear_value(grey: NDArray[np.uint16], image: Image.Image) -> Bits:
    """16-bit grey of which a PNG may declare one value to be transparent, as grey and alpha."""
    clear = image.info.get("transparency")
    if not isinstance(clear, int):
        return grey
    alpha = np.where(grey == clear, np.uint16(0), np.uint16(0xFFFF))
    return np.concatenate([grey, alpha], axis=2)


def _to_light(image: Image.Image) -> Image.Image:
    """CMYK to RGB: by the picture's own colour profile, without one by what ink leaves of white."""
    profile = image.info.get("icc_profile")
    if not profile:
        return image.convert("RGB")
    try:
        ink = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        light = ImageCms.profileToProfile(
            image, ink, ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    except (ImageCms.PyCMSError, OSError) as error:
        raise InputError(f"its colour profile cannot be used ({error})") from error
    assert light is not None  # a new image, since it is not asked to work in place
    return light


def _decode_deep(data: bytes, stored: str) -> Bits:
    """16-bit colour of a PNG, which Pillow would cut to 8 bits; OpenCV keeps it."""
    array = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if array is None or array.dtype != np.uint16 or array.ndim != 3:
        raise InputError(f"16-bit colour that cannot be read ({stored})")
    if "LA" in stored:
        return np.asarray(array[..., ::3], np.uint16).copy()
    order = cv2.COLOR_BGR2RGB if array.shape[2] == 3 else cv2.COLOR_BGRA2RGBA
    return np.asarray(cv2.cvtColor(array, order), np.uint16)


def encode_png(picture: Bits) -> bytes:
    """PNG bytes of [H,W,C] uint8 or uint16 (or [H,W]).

    By OpenCV where it can: 7 times as fast as Pillow, at the same size of photographs.
    """
    array = picture[..., 0] if picture.ndim == 3 and picture.shape[2] == 1 else picture
    if array.ndim == 3 and array.shape[2] == 2:
        return _encode_deep_alpha(array) if array.dtype == np.uint16 else _encode_alpha(array)
    stored = array if array.ndim == 2 else cv2.cvtColor(array, _TO_BGR[array.shape[2]])
    return bytes(cv2.imencode(".png", stored)[1])


def _encode_alpha(picture: Bits) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "png")
    return buffer.getvalue()


def _encode_deep_alpha(picture: Bits) -> bytes:
    """PNG of [H,W,2] uint16, grey and alpha, which neither Pillow nor OpenCV writes."""
    height, width = picture.shape[:2]
    packer = zlib.compressobj(6)
    parts = [
        b"\x89PNG\r\n\x1a\n",
        _chunk(b"IHDR", struct.pack(">2L5B", width, height, 16, 4, 0, 0, 0)),
    ]
    rows = (packer.compress(b"\0" + row.astype(">u2").tobytes()) for row in picture)  # unfiltered
    body = b"".join([*rows, packer.flush()])
    return b"".join([*parts, _chunk(b"IDAT", body), _chunk(b"IEND", b"")])


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data))


@dataclass(frozen=True)
class Window:
    """A square of the picture that the model sees: corner (y, x) and side, in picture pixels.

    It may reach over the border of a picture that is smaller; what lies outside is mirrored.
    """

    y: int
    x: int
    side: int

    def crop(self, array: NDArray[Any]) -> NDArray[Any]:
        """[H,W,…] -> [side,side,…], mirrored beyond the border."""
        (top, inside_y, bottom), (left, inside_x, right) = (
            self._span(start, size)
            for start, size in zip((self.y, self.x), array.shape[:2], strict=True)
        )
        view = array[inside_y, inside_x]
        pad = [(top, bottom), (left, right), *[(0, 0)] * (array.ndim - 2)]
        return np.pad(view, pad, mode="symmetric") if any(map(any, pad)) else view

    def paste(self, array: NDArray[Any], window: NDArray[Any]) -> None:
        """Write [side,side,…] back into [H,W,…]; what lies beyond the border is dropped."""
        (top, inside_y, _), (left, inside_x, _) = (
            self._span(start, size)
            for start, size in zip((self.y, self.x), array.shape[:2], strict=True)
        )
        height, width = array[inside_y, inside_x].shape[:2]
        array[inside_y, inside_x] = window[top : top + height, left : left + width]

    def _span(self, start: int, size: int) -> tuple[int, slice, int]:
        """Mirrored pixels before, the part inside the picture, mirrored pixels after."""
        end = start + self.side
        return max(0, -start), slice(max(0, start), min(size, end)), max(0, end - size)


def place_window(mask: Mask, side: int, context: int) -> Window:
    """The window for a mask: the model's own size at the picture's resolution if it fits.

    mask [H,W] with at least one pixel; ``side`` is the model's window and ``context`` the
    pixels wanted around the mask. A larger mask gets a larger window, which is then scaled.
    """
    ys, xs = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    low, high = np.array([ys[0], xs[0]]), np.array([ys[-1], xs[-1]]) + 1
    side = max(side, int((high - low).max()) + 2 * context)
    corner = (low + high - side) // 2
    room = np.array(mask.shape) - side
    corner = np.where(room >= 0, np.clip(corner, 0, np.maximum(room, 0)), room // 2)
    return Window(int(corner[0]), int(corner[1]), side)


def to_model(picture: Bits, size: int) -> Floats:
    """[S,S,C] uint8 or uint16 -> [3,size,size] float32 in [-1,1]; alpha is left out."""
    top = np.iinfo(picture.dtype).max
    colour = picture[..., :-1] if picture.shape[2] in _ALPHA else picture
    values = colour.astype(np.float32) / np.float32(top / 2) - 1
    if values.shape[2] == 1:
        values = np.repeat(values, 3, axis=2)
    return np.ascontiguousarray(_resize(values, size).transpose(2, 0, 1))


def from_model(pixels: Floats, size: int) -> Pixels:
    """[3,h,w] float32 in about [-1,1] -> [size,size,3] float32, 0 black and 1 white."""
    values = _resize(np.ascontiguousarray(pixels.transpose(1, 2, 0)), size)
    return np.asarray(values / 2 + 0.5, np.float32)


def _resize(values: Pixels, size: int) -> Pixels:
    if values.shape[0] == size:
        return values
    method = cv2.INTER_AREA if size < values.shape[0] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(values, (size, size), interpolation=method), np.float32)


def feather(mask: Mask, grow: float, width: float) -> Pixels:
    """Weight of the result, [H,W] in [0,1]: 1 up to ``grow`` px from the mask, then falling.

    Exactly 0 from ``grow + width`` px on, so that everything there stays as it was.
    """
    distance = cv2.distanceTransform(1 - mask.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    ramp = np.clip(1 - (distance - grow) / max(width, 1e-6), 0, 1)
    return np.asarray(ramp * ramp * (3 - 2 * ramp), np.float32)


def composite(source: Bits, change: Pixels, weight: Pixels) -> Bits:
    """``source + weight · change``, at the source's own bit depth and number of channels.

    source [H,W,C]; change [H,W,3] in units of the full range; weight [H,W] in [0,1]. Where the
    weight is 0 the result is bit-identical; alpha is never touched; grey takes the mean change.
    """
    colours = source.shape[2] - (source.shape[2] in _ALPHA)
    if colours == 1:
        change = change.mean(axis=2, keepdims=True)
    top = np.iinfo(source.dtype).max
    result = source.copy()
    moved = source[..., :colours] + np.float64(top) * weight[..., None] * change
    touched = weight > 0
    result[touched, :colours] = np.clip(np.rint(moved[touched]), 0, top).astype(source.dtype)
    return result


def find_pictures(folder: Path) -> list[Path]:
    """All pictures below a folder by their suffix, nothing hidden; in the order of their names."""
    inside = {path.relative_to(folder): path for path in folder.rglob("*")}
    pictures = {
        name.as_posix(): path
        for name, path in inside.items()
        if name.suffix.lower() in _SUFFIXES
        and not any(part.startswith(".") for part in name.parts)
        and path.is_file()
    }
    return [pictures[name] for name in sorted(pictures)]
