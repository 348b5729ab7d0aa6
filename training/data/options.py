"""Options that several commands have in common, in the same words."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field

__all__ = ["Group", "Near", "Seed"]

#: What one workpiece is, see `defectrt.training.proving.workpieces.workpieces`.
Group: TypeAlias = Annotated[
    tuple[str, ...],
    Field(
        min_length=1,
        description="What tells a workpiece: a regular expression on the names, as in "
        r"'tile(\d+)'; folder: the folder a picture lies in; auto: pictures that look "
        "nearly the same are of one. Repeat to join by several.",
        json_schema_extra={"metavar": "REGEX|folder|auto"},
    ),
]
#: How far numbers of one workpiece are apart, see `defectrt.training.data.splits.SameWorkpiece`.
Near: TypeAlias = Annotated[
    int | None,
    Field(
        ge=1,
        description="With a regular expression of a number: numbers that follow on each other "
        "by less than this are one workpiece.",
    ),
]
Seed: TypeAlias = Annotated[int, Field(ge=0, description="Seed of what is drawn by chance.")]
