"""What a threshold card is made of; see docs/evaluation.md."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from defectrt.config.base import Config

from ..data.options import Group, Near, Seed

__all__ = ["ThresholdConfig"]


class ThresholdConfig(Config):
    """How a detector's threshold is found; the options of ``defectrt threshold``."""

    good: Annotated[
        tuple[Path, ...],
        Field(
            min_length=1,
            description="Good pictures that the detector has not learned from; repeat to add more.",
            json_schema_extra={"metavar": "DIR"},
        ),
    ]
    real: Annotated[
        tuple[Path, ...],
        Field(
            description="Real defects with masks, to compare with: the threshold that they would "
            "have given, and what is found of them.",
            json_schema_extra={"metavar": "DIR"},
        ),
    ] = ()
    scores: Annotated[
        Path | None,
        Field(
            description="What a detector says: a folder of maps (.npy, .tiff) named as the "
            "pictures, or a .json or .csv file with a score or a map for each.",
            json_schema_extra={"metavar": "PATH"},
        ),
    ] = None
    detector: Annotated[
        str | None,
        Field(
            description="A command that scores; {data} in it is a folder with test/, {out} the "
            "file for its answer, as of defectrt prove: see docs/evaluation.md.",
            json_schema_extra={"metavar": "COMMAND"},
        ),
    ] = None
    false_alarms: Annotated[
        float, Field(gt=0, lt=1, description="Share of good pictures that may raise an alarm.")
    ] = 0.01
    found: Annotated[
        float,
        Field(gt=0, lt=1, description="Share of defects that counts as found: the limit samples."),
    ] = 0.9
    layout: Annotated[
        str | None,
        Field(
            description="How --real is laid out, recognised if left out.",
            json_schema_extra={"metavar": "NAME"},
        ),
    ] = None
    group: Group = ("auto",)
    near: Near = None
    seed: Seed = 0

    @model_validator(mode="after")
    def _one_source(self) -> ThresholdConfig:
        if (self.scores is None) == (self.detector is None):
            raise ValueError("give one of --scores and --detector: what the detector says")
        return self
