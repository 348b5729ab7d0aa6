"""Images from files, at their own bit depth."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, ImageFile, UnidentifiedImageError
from PIL.TiffImagePlugin import PREFIXES

from ..errors import InputError, MissingExtraError
from ..files import open_file, read_input
from .tiff import orient, read_info, read_samples
from .types import MAX_BYTES, MAX_PIXELS, Bits

__all__ = ["image_size", "is_jpeg", "read_image", "read_picture"]

_Word = TypeVar("_Word", np.uint8, np.uint16)


#: All that is opened, whatever a file is called: for an EPS Pillow would start Ghostscript.
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP")


#: Rows that are copied at once.
_BAND = 256


#: Of a JPEG: between its parts, and within a scan.
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
#: Pillow's names for 16 bits a channel; BMP's "BGR;16" is 16 bits a pixel.
_DEEP_COLOUR = re.compile(r"(RGB\w?|LA|CMYK);16")


def read_image(path: Path) -> Bits:
    """Read an image of 8 or 16 bits a channel, EXIF orientation applied.

    Palettes become RGB and CMYK becomes RGB (by its own colour profile, if it has 8 bits and one);
    one-bit images become grey; transparency of any kind becomes alpha. Raises `InputError` for
    what cannot be read whole, for numbers that are not of 8 or 16 bits, for files of several
    images, and for images of more than `MAX_PIXELS`; `MissingExtraError` for a TIFF that needs
    the extra ``[tiff]`` (see `defectrt.images.tiff`) without it.
    """
    data = _read_bytes(path)
    with _faults_of(path):
        return _decode(data)


def read_picture(picture: Image.Image) -> Bits:
    """[H,W,C] of a picture that Pillow holds, as `read_image` takes a file's, but not turned.

    Raises `InputError` for numbers that are not of 8 or 16 bits and for more than `MAX_PIXELS`.
    """
    _check_size(*picture.size)
    return _as_array(picture)


def image_size(path: Path) -> tuple[int, int]:
    """Height and width of an image as `read_image` decodes it, turned, but from its header.

    Raises `InputError` for what is no image and for more than `MAX_PIXELS`; damage further on in
    the file goes unseen.
    """
    tiff = _read_bytes(path) if _first_bytes(path) in PREFIXES else None
    with _faults_of(path):
        width, height, orientation = _header(path, tiff)
        _check_size(width, height)
    return (width, height) if 5 <= orientation <= 8 else (height, width)


def is_jpeg(path: Path) -> bool:
    """Whether a file is a JPEG by its first bytes, whatever it is called."""
    return _first_bytes(path).startswith(b"\xff\xd8\xff")


@contextmanager
def _faults_of(path: Path) -> Iterator[None]:
    """What is wrong with a file as `InputError`, which names it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata, and of sizes we allow
            yield
    except (InputError, MissingExtraError) as fault:
        raise type(fault)(f"{path}: {fault}") from None
    except UnidentifiedImageError as error:
        raise InputError(f"{path}: not an image of a known format") from error
    except Exception as error:  # Pillow's parsers raise whatever they stumble over
        raise InputError(f"{path}: damaged or truncated ({error})") from error


def _header(path: Path, tiff: bytes | None) -> tuple[int, int, int]:
    """Width and height as stored, and the orientation; Pillow would turn a TIFF's itself."""
    info = read_info(tiff) if tiff else None
    if info:
        if info.directory.next:
            raise InputError("holds several images; save each in a file of its own")
        return info.width, info.height, info.directory.get(ExifTags.Base.Orientation, 1)
    with _open(path) as image:
        return *image.size, _orientation(image)


def _read_bytes(path: Path) -> bytes:
    data = read_input(path, MAX_BYTES)
    if not data:
        raise InputError(f"{path}: the file is empty")
    return data


def _first_bytes(path: Path) -> bytes:
    """Enough of a file to know its format."""
    try:
        with open_file(path) as file:
            start = file.read(4)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if not start:
        raise InputError(f"{path}: the file is empty")
    return start


def _decode(data: bytes) -> Bits:
    tiff = read_info(data)
    if tiff and tiff.is_ours:
        _check_size(tiff.width, tiff.height)
        _check_size(*tiff.tile)
        if tiff.directory.next:
            raise InputError("holds several images; save each in a file of its own")
        return read_samples(data, tiff)
    with _open(io.BytesIO(data)) as image:
        _check_size(*image.size)
        frames = getattr(image, "n_frames", 1)
        if frames > 1 and image.format != "MPO":  # in an MPO the others are previews
            raise InputError(f"holds {frames} images; save each in a file of its own")
        stored = str([tile[3] for tile in image.tile])
        image.load()  # a truncated file fails here
        if image.format in ("JPEG", "MPO") and _ends_grey(image):
            _check_scan(data, image)
        array = _decode_deep(data, stored) if _DEEP_COLOUR.search(stored) else _as_array(image)
        return orient(array, _orientation(image))


def _ends_grey(image: Image.Image) -> bool:
    """Whether the last pixel is mid-grey, as what a JPEG declares and does not hold is."""
    last = np.asarray(image.getpixel((image.width - 1, image.height - 1)))
    return bool(np.isin(last, (127, 128)).all())


def _check_scan(data: bytes, image: Image.Image) -> None:
    """Refuse a JPEG that ends before its last pixel, which its decoder fills up in silence.

    All that belongs to the image is read before the end of its first scan: more of it changes
    nothing, unless something was missing.
    """
    start, end = _first_scan(data)
    restarts = len(_RESTART.findall(data, start, end))
    next_one = bytes([0xFF, 0xD0 + restarts % 8]) if restarts else b""
    more = b"\x55" * 64 + next_one + b"\x55" * 64
    try:
        with _open(io.BytesIO(data[:end] + more + data[end:])) as other:
            same = other.tobytes() == image.tobytes()
    except OSError:
        same = False
    if not same:
        raise InputError("ends before its last pixel")


def _first_scan(data: bytes) -> tuple[int, int]:
    """Where the first scan of a JPEG starts and ends: before a marker that is not part of it."""
    at = 2
    while data[at + 1] != 0xDA:  # segments, each with its length, up to that of the scan
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    end = _MARKER.search(data, at + 2)
    return at, end.start() if end else len(data)


def _orientation(image: Image.Image) -> int:
    """As EXIF has it: what XMP alone says, browsers and OpenCV do not follow, Pillow would."""
    for key in ("xmp", "XML:com.adobe.xmp"):
        image.info.pop(key, None)
    return int(image.getexif().get(ExifTags.Base.Orientation, 1))


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise InputError(
            f"{width}x{height} is more than {MAX_PIXELS // 1_000_000} megapixels; "
            "cut it into smaller images"
        )


def _open(file: Path | io.BytesIO) -> ImageFile.ImageFile:
    try:
        return Image.open(file, formats=_FORMATS)
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
    """[H,W,C] of an image, some rows at a time, so that it is never in memory three times."""
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
    """CMYK to RGB: by the image's own colour profile, without one by what ink leaves of white."""
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
