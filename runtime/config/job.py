"""A whole job: a folder of good images, what to make of them, and what is written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, get_args

from pydantic import AfterValidator, BeforeValidator, Field

from ..errors import UsageError
from .base import Config, names_a_path
from .engine import EngineConfig
from .masks import MaskConfig
from .names import checked_category
from .synthesis import SynthesisConfig

__all__ = [
    "AREAS",
    "FORMATS",
    "FolderConfig",
    "Format",
    "FormatConfig",
    "JobConfig",
    "SynthesizerConfig",
]

Format: TypeAlias = Literal[
    "mvtec", "coco", "coco-rle", "yolo", "labelme", "label-studio", "imagefolder"
]
FORMATS: tuple[Format, ...] = get_args(Format)


def _expression(value: str | None) -> str | None:
    try:
        re.compile(value or "")
    except re.error as error:
        raise ValueError(f"{value!r} is no regular expression ({error})") from None
    return value


def _part(value: str | None) -> str | None:
    """I/N, one of N equal parts."""
    if value is None:
        return None
    part, slash, of = value.partition("/")
    if (
        not (slash and part.isdecimal() and of.isdecimal())
        or not 1 <= int(part) <= int(of) <= 10**6
    ):
        raise ValueError(f"write I/N, as in 1/4 up to 4/4, not {value!r}")
    return f"{int(part)}/{int(of)}"


def _named(value: Any) -> Any:
    """Formats as names in their own order, also from texts with commas."""
    given = (value,) if isinstance(value, str) else value
    if not isinstance(given, list | tuple) or not all(isinstance(text, str) for text in given):
        return value
    names = {name.strip() for text in given for name in text.split(",")} - {""}
    if not names or names - set(FORMATS):
        raise ValueError(f"choose from {', '.join(FORMATS)}, with commas between")
    return tuple(name for name in FORMATS if name in names)


class FolderConfig(Config):
    """What is read and what is written."""

    images: Annotated[Path, Field(description="Folder of good images, or one image.")]
    out: Annotated[
        Path | None,
        Field(
            description="Folder for the dataset; by default a new one beside the images, called "
            "like them with -defects."
        ),
    ] = None
    category: Annotated[
        str,
        AfterValidator(checked_category),
        Field(description="Name of the workpiece, a folder in OUT."),
    ] = "parts"

    mark: Annotated[
        bool,
        Field(
            description="Say in each made picture's metadata that it is made, and of what, for "
            "`defectrt inspect` and `remake`; its pixels are the same either way."
        ),
    ] = True
    shard: Annotated[
        str | None,
        AfterValidator(_part),
        Field(
            description="Only every N-th image, beginning with the I-th, as in 2/8: for as many "
            "processes or machines, each with an OUT of its own; `defectrt merge` joins them.",
            json_schema_extra={"metavar": "<i/n>"},
        ),
    ] = None

    healthy: Annotated[
        float,
        Field(
            ge=0,
            lt=1,
            description="Share of the samples that are painted without a defect, where one would "
            "have been: further good images in OUT/healthy, so that a detector does not learn "
            "the paint.",
        ),
    ] = 0.0

    def is_mine(self, index: int) -> bool:
        """Whether this job is to make the samples of an image, by its place in the folder."""
        part, of = map(int, (self.shard or "1/1").split("/"))
        return index % of == part - 1

    @property
    def dataset(self) -> Path:
        """Where the dataset goes: ``out``, or beside the images."""
        if self.out:
            return self.out
        images = self.images if self.images.name not in ("", "..") else self.images.resolve()
        name = images.stem if images.is_file() else images.name
        if not name:
            raise UsageError(f"{images}: nothing lies beside it; give --out")
        part = f"-{self.shard.replace('/', 'of')}" if self.shard else ""
        return images.with_name(f"{name}-defects{part}")


class FormatConfig(Config):
    """In which formats a dataset is written."""

    formats: Annotated[
        tuple[Format, ...],
        BeforeValidator(_named),
        Field(
            alias="format",
            description="What to write, with commas: mvtec (always), coco, coco-rle, yolo, "
            "labelme, label-studio, imagefolder; see the docs.",
        ),
    ] = ("mvtec",)
    workpiece: Annotated[
        str | None,
        AfterValidator(_expression),
        Field(
            description=r"What tells the workpiece in an image's name, as in 'tile(\d+)': all of "
            "one is on one side of train, val and test. By default every image shows its own.",
            json_schema_extra={"metavar": "<regex>"},
        ),
    ] = None
    test_share: Annotated[
        float,
        Field(
            ge=0,
            le=0.8,
            description="Share of the workpieces that the formats set apart to test on: their good "
            "images, and no made defects.",
        ),
    ] = 0.0
    synthetic_test: Annotated[
        bool, Field(description="Test on the made defects of these workpieces, too.")
    ] = False


class SynthesizerConfig(SynthesisConfig, MaskConfig, EngineConfig):
    """What to make, where, and on what: all that a `defectrt.Synthesizer` needs."""

    def remade_by(self) -> tuple[dict[str, Any], list[str]]:
        """What makes a sample again, beside its image, number, type and engine.

        The options that were given, as a file has them, without those that name files; and the
        keys of these.
        """
        own = REMADE_BY | NAMING_FILES if self.mixed else (REMADE_BY | NAMING_FILES) - {"defect"}
        given = self.model_dump(mode="json", include=own & self.model_fields_set)
        given = {key: value for key, value in given.items() if value is not None}
        said = {key: value for key, value in given.items() if key in REMADE_BY}
        return said, sorted(given.keys() - said.keys())


#: Options that decide a sample, and are not the hardware's: those that name files, and the others.
NAMING_FILES = {
    key
    for area in (SynthesisConfig, MaskConfig)
    for key, field in area.model_fields.items()
    if names_a_path(field.annotation)
}
REMADE_BY = {*SynthesisConfig.model_fields, *MaskConfig.model_fields} - NAMING_FILES - {"count"}


class JobConfig(SynthesizerConfig, FormatConfig, FolderConfig):
    """All of a job, as the command line, a YAML file and Python say it.

    Its areas, in the order in which they are shown, are in `AREAS`.
    """


#: The areas of a job.
AREAS = (FolderConfig, FormatConfig, EngineConfig, SynthesisConfig, MaskConfig)
