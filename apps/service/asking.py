"""What a request asks for: its images, checked before they are decoded, and its options."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

from defectrt.config.command_line import keys
from defectrt.config.job import SynthesizerConfig
from defectrt.config.masks import MaskConfig
from defectrt.config.synthesis import SynthesisConfig
from defectrt.errors import DefectRTError, InputError, UsageError
from defectrt.images.reading import image_size
from defectrt.synthesis.workpiece import Checked, Workpiece

__all__ = ["Asked", "TooLargeError", "asked", "read_workpiece"]


class TooLargeError(DefectRTError):
    """An image is larger than the service takes."""


def _names_a_path(kind: Any) -> bool:
    return kind is Path or any(map(_names_a_path, get_args(kind)))


#: What a request may say of how samples are made: everything that names no file of the server.
_OPTIONS = {
    key
    for key, field in keys(SynthesisConfig, MaskConfig)
    if key != "count" and not _names_a_path(field.annotation)
}
#: What it may say beside these.
_OWN = {"name", "number", "engine"}
_FILES = ("image", "mask")


@dataclass(frozen=True)
class Asked:
    """One sample that a request asks for.

    files    bytes of the image, and of a mask if there is one
    engine   the name of an engine; None for the service's own
    name     decides the noise, with the seed and the number
    options  of `SynthesizerConfig`
    """

    files: dict[str, bytes]
    engine: str | None
    name: str
    number: int
    options: dict[str, Any]

    def config(self, base: SynthesizerConfig) -> SynthesizerConfig:
        """How it is made, over the service's own. Raises `UsageError` listing all faults."""
        return base.replace(**self.options)


def asked(values: Mapping[str, Any], files: Mapping[str, tuple[str, bytes]]) -> Asked:
    """A request's fields and files, each with its name; in JSON, files are texts in base64.

    Raises `UsageError` for a field that is not known, `InputError` without an image.
    """
    content = {key: data for key, (_, data) in files.items()}
    values = dict(values)
    for key in _FILES:
        if key in values:
            content[key] = _decoded(key, values.pop(key))
    if unknown := sorted({*values, *content} - _OPTIONS - _OWN - {*_FILES}):
        known = ", ".join(sorted(_OPTIONS | _OWN | {*_FILES}))
        raise UsageError(f"{', '.join(unknown)}: unknown; there are {known}")
    if "image" not in content:
        raise InputError("image: needed, a PNG, JPEG, TIFF or BMP")
    own = {key: values.pop(key) for key in _OWN if key in values}
    name = own.get("name") or (files["image"][0] if "image" in files else "")
    engine = own.get("engine")
    return Asked(
        content,
        None if engine is None else str(engine),
        str(name),
        _whole(own.get("number", 0)),
        values,
    )


def _decoded(key: str, text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise InputError(f"{key}: not base64") from None


def _whole(value: Any) -> int:
    try:
        number = int(str(value))
    except ValueError:
        number = -1
    if not 0 <= number < 1 << 31:
        raise UsageError(f"number {value!r}: a whole number from 0")
    return number


def read_workpiece(wanted: Asked, config: SynthesizerConfig, max_pixels: int) -> Checked:
    """Decode the images of a request, no larger than ``max_pixels``.

    Raises `TooLargeError` before anything is decoded, `InputError` for what cannot be used.
    """
    with TemporaryDirectory(prefix="defectrt-") as folder:
        paths = {}
        for key, data in wanted.files.items():
            paths[key] = Path(folder) / key
            paths[key].write_bytes(data)
        try:
            for key, path in paths.items():
                height, width = image_size(path)
                if height * width > max_pixels:
                    raise TooLargeError(f"{key}: {width}x{height}; up to {max_pixels} px")
            types = config.defect
            return Checked(
                Workpiece(
                    paths["image"],
                    paths.get("mask"),
                    wanted.name or "image",
                    types[0].defect_type if len(types) == 1 else None,
                )
            )
        except DefectRTError as error:
            raise type(error)(str(error).replace(f"{folder}/", "")) from None
