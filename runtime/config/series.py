"""A series of limit samples: one defect on one image, at graded sizes and strengths."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, model_validator

from .base import Config, parts
from .engine import EngineConfig
from .synthesis import MAX_STRENGTH

__all__ = ["SERIES_AREAS", "GradesConfig", "SeriesConfig"]

#: Grades of each kind, at most.
_MOST = 50


class GradesConfig(Config):
    """What is graded, and where it is written."""

    image: Annotated[Path, Field(description="A good image.")]
    out: Annotated[Path, Field(description="New folder for the series.")]
    defect: Annotated[
        str | None, Field(description="Type of defect; may be left out if there is one.")
    ] = None
    mask: Annotated[
        Path | None,
        Field(
            description="Where the defect is and its shape; not 0 is defect. Without it, one that "
            "suits the type is drawn."
        ),
    ] = None
    strengths: Annotated[
        tuple[float, ...],
        BeforeValidator(parts),
        Field(
            description="Contrasts to the surroundings, with commas: 0.1 is barely visible, 1 "
            "black or twice as bright.",
            json_schema_extra={"metavar": "<float,…>"},
        ),
    ] = (0.1, 0.2, 0.3, 0.45, 0.6, 0.8)
    sizes: Annotated[
        tuple[float, ...],
        BeforeValidator(parts),
        Field(
            description="Longest sides of the defect in px, with commas; by default the mask's.",
            json_schema_extra={"metavar": "<float,…>"},
        ),
    ] = ()
    seed: Annotated[int, Field(description="Another seed, another defect.")] = 0
    steps: Annotated[
        int | None, Field(description="DDIM steps; one of the engine's schedules.")
    ] = None

    @model_validator(mode="after")
    def _grades_are_possible(self) -> GradesConfig:
        faults = [
            (
                not all(0 < strength <= MAX_STRENGTH for strength in self.strengths),
                f"strengths: above 0 and up to {MAX_STRENGTH}",
            ),
            (not all(1 <= size <= 4096 for size in self.sizes), "sizes: 1 to 4096 px"),
            (not self.strengths, "strengths: at least one"),
            (
                max(len(g) - len({f"{x:g}" for x in g}) for g in (self.strengths, self.sizes)) > 0,
                "strengths, sizes: each only once",
            ),
            (
                max(len(self.strengths), len(self.sizes)) > _MOST,
                f"strengths, sizes: at most {_MOST} of each",
            ),
        ]
        if found := [text for wrong, text in faults if wrong]:
            raise ValueError("; ".join(found))
        return self


class SeriesConfig(GradesConfig, EngineConfig):
    """All of a series."""


#: The areas of a series.
SERIES_AREAS = (GradesConfig, EngineConfig)
