"""What a proof is: the options of ``defectrt prove``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from defectrt.config.base import Config, parts

from ..data.options import Group, Near

__all__ = ["QUICK", "DetectorConfig", "MaterialConfig", "ProveConfig"]

#: Steps of a head over frozen features: about as many as are best for most arms.
FROZEN_STEPS = 300
#: What ``--quick`` says where nothing else was said.
QUICK: dict[str, Any] = {"seeds": 3, "splits": 1, "steps": 300, "budget": 8.0}


def _numbers(value: Any) -> Any:
    """Numbers given one by one, or several in a text divided by commas."""
    return parts(value if isinstance(value, tuple | list) else (value,))


_FOLDER = {"metavar": "DIR"}


class MaterialConfig(Config):
    """Real pictures beside those with defects, and what is one workpiece."""

    good: Annotated[
        tuple[Path, ...],
        Field(description="Folder of good pictures. Repeat for more.", json_schema_extra=_FOLDER),
    ] = ()
    healthy: Annotated[
        tuple[Path, ...],
        Field(
            description="Pictures that were painted without a defect: whether they help as further "
            "good ones is measured. Repeat for more.",
            json_schema_extra=_FOLDER,
        ),
    ] = ()
    layout: Annotated[
        str | None,
        Field(description="How DEFECTS is laid out, recognised if left out; see data inspect."),
    ] = None
    group: Group = ("auto",)
    near: Near = None


class DetectorConfig(Config):
    """The small detector that is trained again and again, and what it is trained on."""

    steps: Annotated[
        int, Field(ge=1, description="Steps of a training at most; held-out pictures end it.")
    ] = 600
    window: Annotated[
        int, Field(ge=16, multiple_of=8, description="Side of the detector's crops, px.")
    ] = 96
    batch_size: Annotated[
        int, Field(ge=2, multiple_of=2, description="Crops of a step, half of them good.")
    ] = 8
    width: Annotated[int, Field(ge=1, description="Channels of the U-Net's first level.")] = 8
    backbone: Annotated[
        Literal["efficientnet-lite0"] | None,
        Field(
            description="What the U-Net sees pictures with: efficientnet-lite0, with ImageNet's "
            "weights (the extra evaluate brings them); by default it starts at random.",
        ),
    ] = None
    frozen: Annotated[
        bool,
        Field(
            description="With --backbone: nothing but a small head learns, over features that stay "
            "as they are, px by px, and for all of --steps (300 by default). Seconds a training "
            "where a U-Net takes minutes."
        ),
    ] = False
    learning_rate: Annotated[float, Field(gt=0, description="Of AdamW.")] = 2e-3

    @model_validator(mode="before")
    @classmethod
    def _fewer_steps(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("frozen"):
            return {"steps": FROZEN_STEPS} | values
        return values

    seed: Annotated[int, Field(ge=0, description="Seed of splits and trainings.")] = 0
    workers: Annotated[
        int | None,
        Field(ge=1, description="Trainings side by side, a core each; all cores by default."),
    ] = None


class ProveConfig(DetectorConfig, MaterialConfig):
    """How it is found out whether made defects help."""

    synthetic: Annotated[
        tuple[Path, ...],
        Field(
            description="A set of made defects: the output of synthesize, a folder of several "
            "outputs, or a dataset with masks. Repeat for more sets; each is compared by itself.",
            json_schema_extra=_FOLDER,
        ),
    ]
    held_out: Annotated[
        Path | None,
        Field(
            description="Dataset of real pictures to test on, good ones too. DEFECTS then only "
            "train, and only seeds vary.",
            json_schema_extra=_FOLDER,
        ),
    ] = None
    engine: Annotated[
        tuple[Path, ...],
        Field(
            description="Engine that made a set, which says what it has learned from. Repeat for "
            "more. Of the bundled engine it is known.",
            json_schema_extra=_FOLDER,
        ),
    ] = ()
    share: Annotated[
        tuple[Annotated[float, Field(gt=0, lt=1)], ...],
        BeforeValidator(_numbers),
        Field(
            min_length=1,
            description="Share of made ones among the crops that show a defect; several, divided "
            "by commas, are compared.",
            json_schema_extra={"metavar": "<float,…>"},
        ),
    ] = (0.5,)
    per_real: Annotated[
        tuple[Annotated[int, Field(ge=1)], ...],
        BeforeValidator(_numbers),
        Field(
            description="Made pictures per real one, at most; several, divided by commas, are "
            "compared. By default all there are.",
            json_schema_extra={"metavar": "<int,…>"},
        ),
    ] = ()
    pick: Annotated[
        Literal["any", "far"],
        Field(
            description="With --per-real: any of the made pictures, or those whose defects are "
            "farthest from each other in size, shape and look."
        ),
    ] = "any"
    seeds: Annotated[int, Field(ge=1, le=100, description="Trainings of every arm a split.")] = 3
    splits: Annotated[
        int, Field(ge=1, le=100, description="Divisions of the workpieces into train and test.")
    ] = 3
    check_every: Annotated[
        int, Field(ge=1, description="Steps between looks at the held-out training pictures.")
    ] = 50
    patience: Annotated[
        int, Field(ge=1, description="Looks without improvement that end a training.")
    ] = 4
    worth: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="Gain of pixel AP that is worth having: where the interval ends below it, "
            "made defects do not help.",
        ),
    ] = 0.02
    detector: Annotated[
        str | None,
        Field(
            description="A command that trains and scores in place of the U-Net; {data} in it is a "
            "folder to train on and to test, {out} the file for its answer, {seed} the seed: see "
            "docs/proof.md.",
            json_schema_extra={"metavar": "COMMAND"},
        ),
    ] = None
    budget: Annotated[
        float | None,
        Field(gt=0, description="Minutes after which no training is begun; the report says so."),
    ] = None

    @model_validator(mode="after")
    def _goes_together(self) -> ProveConfig:
        if self.detector and self.backbone:
            raise ValueError("detector and backbone exclude each other")
        if self.frozen and not self.backbone:
            raise ValueError("frozen: needs a backbone whose features stay as they are")
        if self.pick == "far" and not self.per_real:
            raise ValueError("pick: far needs per_real, how many to pick")
        return self
