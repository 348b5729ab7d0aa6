"""A made image, made again: `remake`."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ..config.job import REMADE_BY, SynthesizerConfig
from ..engines.loading import BUNDLED_ENGINE
from ..engines.manifest import MANIFEST
from ..errors import InputError, UsageError
from ..files import leaves, sha256_of
from ..images.given import in_channels
from ..images.png import encode_png
from ..images.reading import read_image
from ..images.types import Bits, channel_max
from ..output.mark import Mark, marked, read_mark
from .synthesizer import Synthesizer

__all__ = ["Remade", "remake"]


@dataclass(frozen=True)
class Remade:
    """What was made again.

    image      [H,W,C]
    png        the same as a file, with its mark
    differing  px that are not as in the image that was given
    largest    difference there, in grey levels
    """

    image: Bits
    png: bytes
    differing: int
    largest: int


def remake(
    image: str | PathLike[str],
    images: str | PathLike[str],
    *,
    engine: str | PathLike[str] | None = None,
    **options: Any,
) -> Remade:
    """Make an image again, from what it says of itself, and compare every px.

    ``images`` is the folder of good images, or the one image; ``engine`` the engine, by default the
    bundled one. ``options`` are those that name files and were given then, and those of the
    hardware.

    Raises `InputError` for an image without a mark, for a source that is not there or was changed
    and for another engine; `UsageError` for options that are needed and missing, or that the mark
    says already.
    """
    path, folder = Path(image), Path(images)
    mark = read_mark(path)
    if mark.healthy:
        raise InputError(f"{path}: was painted healthy by a job; that job's command makes it again")
    if leaves(mark.source) or mark.options.keys() - REMADE_BY:
        raise InputError(f"{path}: what it says of how it was made cannot be used")
    _check_options(mark, options)
    source = folder if folder.is_file() else folder / mark.source
    _check(path, mark, source, Path(engine) if engine else BUNDLED_ENGINE)
    config = SynthesizerConfig(**mark.options | options | {"engine": engine})
    defect = None if config.mixed else mark.defect
    with Synthesizer(config) as synthesizer:
        result = synthesizer(source, name=mark.source, number=mark.sample, defect=defect)
    if result.fault:
        raise InputError(f"{path}: made again it shows no defect ({result.fault})")
    made, given = in_channels(result.image), read_image(path)
    if made.shape != given.shape or made.dtype != given.dtype:
        raise InputError(f"{path}: is of another size or depth than what its source gives")
    apart = channel_max(np.abs(made.astype(np.int32) - given))
    return Remade(made, marked(encode_png(made), mark), int((apart > 0).sum()), int(apart.max()))


def _check_options(mark: Mark, options: dict[str, Any]) -> None:
    if missing := sorted(set(mark.needs) - set(options)):
        wanted = ", ".join(f"--{key.replace('_', '-')}" for key in missing)
        raise UsageError(f"it was made with {wanted}; give the same again")
    if said := sorted(set(options) & set(mark.options)):
        raise UsageError(f"{', '.join(said)}: the image says so itself; leave it out")


def _check(path: Path, mark: Mark, source: Path, engine: Path) -> None:
    if not source.is_file():
        raise InputError(f"{source}: not there, and {path} was made from it")
    if sha256_of(source) != mark.source_sha256:
        raise InputError(f"{source}: was changed since {path} was made from it")
    found = sha256_of(engine / MANIFEST)
    if found != mark.engine:
        raise InputError(
            f"{engine}: not the engine of {path} (its manifest is {found[:12]}…, and should be "
            f"{mark.engine[:12]}…); give its own with --engine"
        )
