"""What to make: the options of one sample."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from ..diffusion.sampler import Background
from ..errors import UsageError
from ..synthesis.refinement import Refinement
from ..synthesis.scheduler import BATCH

__all__ = ["Blend", "Job"]

#: ``residual`` adds the change that the model made to the original; ``decoded`` blends to the
#: model's own pixels.
Blend = Literal["residual", "decoded"]


@dataclass(frozen=True)
class Job:
    """What to make of every image.

    count         defects an image, from one inversion
    candidates    tries a tile; the one of the highest score is kept
    seed          of the noise; with an image's name and the sample's number it decides the defect
    steps         DDIM steps; one of the engine's schedules, None for its default
    min_coverage  share of the mask that must have changed; less is no defect
    max_leak      change that the soft border has to fade out, as a share of the defect's own;
                  a defect that does not end within its mask shows a seam
    grow          px beyond the mask in which the result still counts fully
    feather       px over which it then fades; beyond, every pixel is the original's
    context       px of surroundings the model sees around a mask that fills its window; at least
                  as many as grow and feather take
    batch         rows in the engine at once; changes a result by rounding at most

    Raises `UsageError` for impossible values, all of them in one message.
    """

    defect: str | None = None
    count: int = 1
    candidates: int = 1
    seed: int = 0
    steps: int | None = None
    background: Background = "replay"
    blend: Blend = "residual"
    refinement: Refinement = field(default_factory=Refinement)
    min_coverage: float = 0.05
    max_leak: float = 1.0
    grow: float = 2.0
    feather: float = 4.0
    context: int = 8
    batch: int = BATCH

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        faults = [
            (self.count < 1, "count: at least 1"),
            (self.candidates < 1, "candidates: at least 1"),
            (self.batch < 1, "batch: at least 1"),
            (not 0 <= self.min_coverage <= 1, "min_coverage: 0 to 1"),
            (not 0 <= self.max_leak < math.inf, "max_leak: 0 or more"),
            (not 0 <= self.grow < math.inf, "grow: 0 px or more"),
            (not 0 <= self.feather < math.inf, "feather: 0 px or more"),
            (self.context < 0, "context: 0 px or more"),
            (self.background not in get_args(Background), "background: replay or dual"),
            (self.blend not in get_args(Blend), "blend: residual or decoded"),
        ]
        found = [text for wrong, text in faults if wrong]
        if found:
            raise UsageError("the options are not possible: " + "; ".join(found))

    def record(self) -> dict[str, Any]:
        """Everything that decides what is made, to the bit; flat."""
        options = asdict(self)
        refinement = options.pop("refinement")
        return options | {f"refine_{name}": value for name, value in refinement.items()}
