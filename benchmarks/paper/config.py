"""One configuration of the whole: which data, which model, how much of each."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from defectrt.config.base import Config
from defectrt.config.synthesis import SynthesisConfig
from defectrt.config.yaml import read_yaml
from defectrt.errors import UsageError
from defectrt.training.proving.config import ProveConfig

#: The paper's Eq. 5 and its ablation, and what a folder of theirs cannot be called.
OURS, MASKS, UNSEEN, NAIVE = "ours", "ours-masks", "ours-unseen", "naive"


class DatasetConfig(Config):
    """A benchmark dataset: its categories, each with types of defect.

    path        a folder in any layout; without it, and ``logical``, trays are drawn
    categories  folders in it that are laid out so; without them it is one category itself
    layout      recognised if left out; classes of MVTec LOCO AD where ``logical``
    types       to take; by default all
    logical     parts that are missing, one too many or swapped: Tables 2b and 3
    steps       of fine-tuning, if other than the whole's
    group, near what tells a workpiece, as of ``defectrt prove``; by default a type and a number
    """

    path: Path | None = None
    categories: tuple[str, ...] = ()
    layout: str | None = None
    types: tuple[str, ...] = ()
    logical: bool = False
    steps: Annotated[int, Field(ge=1)] | None = None
    group: Annotated[tuple[str, ...], Field(min_length=1)] = (r"([^/]+/\d+)[^/]*$",)
    near: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _something_is_there(self) -> Self:
        if self.path is None and not self.logical:
            raise ValueError("path: needed; only logical anomalies can be drawn instead")
        if self.path is None and self.categories:
            raise ValueError("categories: only of a path")
        return self


class Landscape(Config):
    """Figure 4, of the first category's first fold; see `benchmarks.paper.landscape`."""

    points: Annotated[int, Field(ge=3)] = 21
    span: Annotated[float, Field(gt=0)] = 0.25
    rows: Annotated[int, Field(ge=1)] = 16


class PaperConfig(Config):
    """What is repeated, and at which scale; the defaults are the paper's.

    model      Stable Diffusion to start from, with LoRA; by default the bundled base
    shots      defects a type to learn from; by default all of a fold's side
    good       good pictures of a side at most
    instances  made pictures a type, in every set
    steps      of each fine-tuning
    synthesis  how they are made, as of ``defectrt synthesize``
    networks   that see the pictures, as of ``defectrt evaluate``
    detector   options of ``defectrt prove``, such as seeds and steps
    others     methods whose pictures were made elsewhere: a dataset with masks each, a path with
               {category} and {fold}; columns and rows of their own in Tables 1 to 3
    ablation   categories of Table 4; by default all that are not logical
    """

    datasets: Annotated[dict[str, DatasetConfig], Field(min_length=1)]
    model: str | None = None
    shots: Annotated[int, Field(ge=1)] | None = None
    good: Annotated[int, Field(ge=2)] = 100
    instances: Annotated[int, Field(ge=2)] = 100
    steps: Annotated[int, Field(ge=1)] = 500
    synthesis: SynthesisConfig = SynthesisConfig(steps=50, background="dual", refine="attention")
    networks: Annotated[tuple[str, ...], Field(min_length=1)] = ("efficientnet-lite0",)
    detector: dict[str, Any] = Field(default_factory=dict)
    others: dict[str, str] = Field(default_factory=dict)
    ablation: tuple[str, ...] | None = None
    landscape: Landscape = Landscape()
    device: str = "auto"
    threads: Annotated[int, Field(ge=1)] | None = None
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        how = self.proving(synthetic=(Path("made"),))
        if len(how.share) > 1 or len(how.per_real) > 1 or how.healthy:
            raise ValueError("detector: one share, and one number per_real; sets are compared here")
        if taken := self.others.keys() & {OURS, MASKS, UNSEEN, NAIVE}:
            raise ValueError(f"others: {', '.join(sorted(taken))} is one of this project's own")
        return self

    def proving(self, **given: Any) -> ProveConfig:
        """How detectors are trained. Raises `UsageError` for what is not possible."""
        return ProveConfig(**{"workers": self.threads} | self.detector | given)


def configured(path: Path, options: Namespace) -> PaperConfig:
    """The file's configuration, over it what the command line says."""
    values: dict[str, Any] = read_yaml(path)
    datasets = values.get("datasets")
    for text in options.data:
        name, _, folder = text.partition("=")
        if not folder or not isinstance(datasets, dict) or name not in datasets:
            raise UsageError(f"--data {text}: write NAME=DIR, with a name of {path}'s datasets")
        datasets[name] = (datasets[name] or {}) | {"path": folder}
    given = {name: getattr(options, name) for name in ("model", "device", "threads")}
    return PaperConfig(**values | {name: v for name, v in given.items() if v is not None})
