"""What a request asks for: its images, checked before they are decoded, and its options."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from defectrt.config.base import names_a_path
from defectrt.config.command_line import keys
from defectrt.config.job import FolderConfig, FormatConfig, SynthesizerConfig
from defectrt.config.masks import MaskConfig
from defectrt.config.synthesis import SynthesisConfig
from defectrt.errors import InputError, MissingExtraError, UsageError
from defectrt.images.reading import image_size
from defectrt.synthesis.workpiece import Checked, Workpiece

from .errors import TooLargeError, without_paths

__all__ = ["Asked", "asked", "checked", "job_options", "parsed", "read_workpiece"]


#: What a request may say of how samples are made: everything that names no file of the server.
_OPTIONS = {
    key
    for key, field in keys(SynthesisConfig, MaskConfig)
    if key != "count" and not names_a_path(field.annotation)
}
#: What a job may say besides.
_OF_JOBS = {"count"} | {
    key for key, field in keys(FormatConfig, FolderConfig) if not names_a_path(field.annotation)
}
#: What a request may say beside these.
_OWN = {"name", "number", "engine", "mark"}
_FILES = ("image", "mask")
#: Greatest values of options whose work, or memory, grows with them.
_MOST = {
    "candidates": 16,
    "grow": 256,
    "feather": 256,
    "context": 1024,
    "margin": 4096,
    "refine_smooth": 64,
}
#: Letters of a name, and objects, lists and values in a JSON body.
_LONGEST, _PARTS = 1000, 1000


@dataclass(frozen=True)
class Asked:
    """One sample that a request asks for.

    files    bytes of the image, and of a mask if there is one
    engine   the name of an engine; None for the service's own
    name     decides the noise, with the seed and the number
    mark     whether the result says in its metadata how it was made
    options  of `SynthesizerConfig`
    """

    files: dict[str, bytes]
    engine: str | None
    name: str
    number: int
    mark: bool
    options: dict[str, Any]


def parsed(body: bytes) -> dict[str, Any]:
    """The object in a JSON body.

    Raises `InputError` for what is none, and for one of many parts before it is built: base64 has
    neither commas nor brackets.
    """
    if sum(map(body.count, (b",", b"[", b"{"))) > _PARTS:
        raise InputError(f"the body has more than {_PARTS} parts")
    try:
        values = json.loads(body)
        json.dumps(values, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise InputError("the body is no JSON object")
    return values


def asked(values: Mapping[str, Any], files: Mapping[str, tuple[str, bytes]]) -> Asked:
    """A request's fields and files, each with its name; in JSON, files are texts in base64.

    Raises `UsageError` for a field that is not known, `InputError` without an image.
    """
    content = {key: data for key, (_, data) in files.items()}
    values = dict(values)
    for key in _FILES:
        if key in values:
            content[key] = _decoded(key, values.pop(key))
    _check_known({*values, *content}, _OPTIONS | _OWN | {*_FILES})
    if "image" not in content:
        raise InputError("image: needed, a PNG, JPEG, TIFF or BMP")
    own = {key: values.pop(key) for key in _OWN if key in values}
    name = str(own.get("name") or (files["image"][0] if "image" in files else "") or "image")
    if len(name) > _LONGEST:
        raise UsageError(f"name: up to {_LONGEST} letters")
    engine = own.get("engine")
    return Asked(
        content,
        None if engine is None else str(engine),
        name,
        _whole(own.get("number", 0)),
        _truth(own.get("mark", True)),
        values,
    )


def job_options(values: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a job that a client may give. Raises `UsageError` for any other."""
    _check_known(values, _OPTIONS | _OF_JOBS)
    return dict(values)


def checked(config: SynthesizerConfig) -> SynthesizerConfig:
    """A configuration that costs no more than a client may ask for. Raises `UsageError`."""
    faults = [
        f"{key}: up to {most} here"
        for key, most in _MOST.items()
        if (getattr(config, key) or 0) > most
    ]
    if faults:
        raise UsageError("; ".join(faults))
    return config


def _check_known(given: Mapping[str, Any] | set[str], known: set[str]) -> None:
    if unknown := sorted(set(given) - known):
        names = ", ".join(name[:60] for name in unknown[:10])
        raise UsageError(f"{names}: unknown; there are {', '.join(sorted(known))}")


def _decoded(key: str, text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise InputError(f"{key}: not base64") from None


def _truth(value: Any) -> bool:
    texts = {"true": True, "1": True, "false": False, "0": False}
    if (known := texts.get(str(value).lower())) is None:
        raise UsageError("mark: true or false")
    return known


def _whole(value: Any) -> int:
    try:
        number = int(str(value))
    except ValueError:
        number = -1
    if not 0 <= number < 1 << 31:
        raise UsageError("number: a whole number from 0")
    return number


def read_workpiece(
    wanted: Asked, config: SynthesizerConfig, max_pixels: int, take: Callable[[int], None]
) -> Checked:
    """Decode the images of a request, no larger than ``max_pixels``.

    ``take`` is told of their pixels before they are decoded, and may refuse. Raises
    `TooLargeError` before anything is decoded, `InputError` for what cannot be used.
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
                take(height * width)
            types = config.defect
            return Checked(
                Workpiece(
                    paths["image"],
                    paths.get("mask"),
                    wanted.name,
                    types[0].defect_type if len(types) == 1 else None,
                )
            )
        except (InputError, MissingExtraError) as error:
            raise type(error)(without_paths(str(error), [Path(folder)])) from None
