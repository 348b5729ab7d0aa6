"""Images to PNG, 8 or 16 bits a channel, with or without alpha."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from typing import cast

import cv2
import numpy as np
from PIL import Image

from .types import Bits

__all__ = ["encode_png", "from_base64", "to_base64"]

_TO_BGR = {3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}


def encode_png(image: Bits) -> bytes:
    """PNG bytes of [H,W,C] uint8 or uint16 (or [H,W]).

    By OpenCV where it can: 7 times as fast as Pillow, at the same size of photographs.
    """
    array = image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image
    if array.ndim == 3 and array.shape[2] == 2:
        return _encode_deep_alpha(array) if array.dtype == np.uint16 else _encode_alpha(array)
    stored = array if array.ndim == 2 else cv2.cvtColor(array, _TO_BGR[array.shape[2]])
    return bytes(cv2.imencode(".png", stored)[1])


def to_base64(image: Bits) -> str:
    """The PNG of an image, as text."""
    return base64.b64encode(encode_png(image)).decode()


def from_base64(text: str, *, grey: bool = False) -> Bits | None:
    """The image of a PNG as text; None if it is none.

    [H,W] if it is ``grey`` or to be so, else [H,W,C] with colours in OpenCV's order.
    """
    try:
        data = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
        how = cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_UNCHANGED
        return cast("Bits | None", cv2.imdecode(data, how))
    except (ValueError, cv2.error):
        return None


def _encode_alpha(image: Bits) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "png")
    return buffer.getvalue()


def _encode_deep_alpha(image: Bits) -> bytes:
    """PNG of [H,W,2] uint16, grey and alpha, which neither Pillow nor OpenCV writes."""
    height, width = image.shape[:2]
    packer = zlib.compressobj(6)
    parts = [
        b"\x89PNG\r\n\x1a\n",
        _chunk(b"IHDR", struct.pack(">2L5B", width, height, 16, 4, 0, 0, 0)),
    ]
    rows = (packer.compress(b"\0" + row.astype(">u2").tobytes()) for row in image)  # unfiltered
    body = b"".join([*rows, packer.flush()])
    return b"".join([*parts, _chunk(b"IDAT", body), _chunk(b"IEND", b"")])


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data))
