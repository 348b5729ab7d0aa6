"""What a tuning is: the options of ``defectrt prove --tune``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from ..proving.config import DetectorConfig, MaterialConfig

__all__ = ["TuneConfig"]


class TuneConfig(DetectorConfig, MaterialConfig):
    """How settings of synthesis are chosen by the gain on held-out examples."""

    engine: Annotated[Path, Field(description="Engine whose settings are chosen.")]
    budget: Annotated[
        float,
        Field(gt=0, description="Minutes, those of earlier calls in the same folder included."),
    ]
    steps: Annotated[int, Field(ge=1, description="Steps of a training.")] = 200
    pictures: Annotated[
        int, Field(ge=2, description="Made pictures of each type to train on beside each half.")
    ] = 12
