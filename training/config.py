"""What a training run is made of: presets, a YAML file and the command line, one over the other.

The keys of the file are the names of the options. Nothing here imports torch, so that help is
quick and a wrong configuration is refused before anything is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from defectrt.config.base import Config, faults, message
from defectrt.config.engine import Magnify
from defectrt.config.yaml import read_yaml, write_yaml
from defectrt.errors import UsageError

__all__ = ["PRESETS", "RunConfig", "TrainConfig", "dump_config", "load_config"]

#: Presets are files in the very form that ``--config`` reads.
PRESETS = {path.stem: path for path in sorted(Path(__file__).with_name("presets").glob("*.yaml"))}


class TrainConfig(Config):
    """What decides the weights that a run ends with, beside its model and its images.

    The defaults follow the paper where it speaks (U-Net only, 500 iterations) and DreamBooth
    where it does not (AdamW, constant rate); rates for models trained from nothing are higher.
    """

    objective: Annotated[
        Literal["autoencoder", "decoder", "denoise", "disentangle"],
        Field(
            description="disentangle: the fine-tune (Eq. 5). denoise: a base (Eq. 2). "
            "autoencoder: the VAE of a model made with new-model. decoder: its second half, for a "
            "sharper image of the same latents; a U-Net that was trained on them still fits."
        ),
    ] = "disentangle"
    steps: Annotated[int, Field(ge=1, description="Optimisation steps in all.")] = 500
    batch_size: Annotated[int, Field(ge=1, description="Crops at once, on each device.")] = 4
    accumulate: Annotated[
        int, Field(ge=1, description="Batches whose gradients make one step.")
    ] = 1
    learning_rate: Annotated[
        float,
        Field(
            gt=0,
            lt=1,
            description="5e-6 suits a pretrained model, 1e-4 its LoRA; from nothing 1e-4 to 1e-3.",
        ),
    ] = 5e-6
    warmup: Annotated[int, Field(ge=0, description="Steps over which the rate rises.")] = 0
    cooldown: Annotated[
        int,
        Field(
            ge=0,
            description="Steps at the end over which the rate falls to nothing. May be set anew "
            "with --resume, as steps may.",
        ),
    ] = 0
    weight_decay: Annotated[float, Field(ge=0, description="Of the optimiser.")] = 1e-2
    optimizer: Annotated[
        Literal["adamw", "adafactor"],
        Field(
            description="adafactor keeps a quarter of AdamW's state; its rate is relative to the "
            "weights, so take about 30 times AdamW's."
        ),
    ] = "adamw"
    lora: Annotated[
        int,
        Field(
            ge=0, description="Rank of a LoRA on the attention layers; 0 trains the whole U-Net."
        ),
    ] = 0
    ema_decay: Annotated[
        float,
        Field(alias="ema", ge=0, lt=1, description="Decay of the averaged weights; 0: no average."),
    ] = 0.999
    good: Annotated[
        float,
        Field(alias="good_share", ge=0, le=1, description="Share of crops from good images."),
    ] = 0.5
    prior_weight: Annotated[
        float,
        Field(
            ge=0,
            description="Prior preservation: weight of the loss on good images, beside 1 for the "
            "background of defects.",
        ),
    ] = 1.0
    guidance: Annotated[
        float,
        Field(
            ge=1,
            le=10,
            description="Classifier-free guidance to train in, against the background's prompt, so "
            "that it costs nothing later; 1: none. 1.5 to 2 makes the defects of a model trained "
            "from nothing more distinct, and less varied.",
        ),
    ] = 1.0
    normalize_by_mask_area: Annotated[
        bool,
        Field(description="A small defect weighs as much as a large one; otherwise as printed."),
    ] = True
    background_prompt: Annotated[str, Field(description="C_bg.")] = "good surface"
    masked_prompt: Annotated[str, Field(description="C_m, for an empty mask area.")] = ""
    prompts: Annotated[
        dict[str, str],
        Field(
            alias="prompt",
            description="C_def of a defect type; by default the type's own name.",
            json_schema_extra={"metavar": "TYPE=TEXT"},
        ),
    ] = {}  # noqa: RUF012
    precision: Annotated[
        Literal["auto", "float32", "float16", "bfloat16"],
        Field(
            description="Of the arithmetic (autocast); weights stay float32. auto: bfloat16 where "
            "the device is faster with it than with float32."
        ),
    ] = "float32"
    gradient_checkpointing: Annotated[
        bool, Field(description="Compute activations twice rather than keep them: less memory.")
    ] = False
    window: Annotated[
        int | None, Field(ge=1, description="Side of the crops in px; by default the model's own.")
    ] = None
    magnify: Annotated[
        Magnify,
        Field(
            description="Enlarge crops so many times, for defects thinner than a cell of the "
            "model's latents; fit: crops are whole images fitted into the window, for parts that "
            "are missing, one too many or in the wrong place; take --flip none beside it. The "
            "engine then paints at that scale."
        ),
    ] = 1
    flip: Annotated[
        Literal["both", "horizontal", "vertical", "none"],
        Field(description="Which way crops are mirrored at random."),
    ] = "both"
    turn: Annotated[
        bool,
        Field(
            description="Turn crops by quarters at random; not for surfaces with a direction, such "
            "as brushed metal."
        ),
    ] = False
    contrast: Annotated[
        float, Field(ge=0, lt=1, description="Largest change of a crop's contrast, a share of it.")
    ] = 0.1
    brightness: Annotated[
        float, Field(ge=0, le=1, description="Largest change of a crop's brightness, of the range.")
    ] = 0.025
    loose: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="Share of the defects whose mask is a box or a broad stroke around them, "
            "so that such a mask gets a defect somewhere inside and is not filled; give its engine "
            "a lower --min-coverage.",
        ),
    ] = 0.0
    prediction: Annotated[
        Literal["epsilon", "v_prediction", "sample"] | None,
        Field(description="What the model must predict; refused if its scheduler says otherwise."),
    ] = None
    seed: Annotated[int, Field(ge=0, description="Seed of crops and noise.")] = 0

    @property
    def of_vae(self) -> bool:
        """Whether the VAE is trained, or a part of it, and not the U-Net."""
        return self.objective in ("autoencoder", "decoder")

    @model_validator(mode="after")
    def _training_goes_together(self) -> TrainConfig:
        if self.lora and self.of_vae:
            raise ValueError(f"lora: there is none for the {self.objective}; leave it out")
        return self


def _several(value: Any) -> Any:
    """One folder may stand without its brackets."""
    return (value,) if isinstance(value, str | Path) else value


class RunConfig(Config):
    """Where a run reads and writes, and how it is watched."""

    model: Annotated[
        str | None,
        Field(
            min_length=1,
            description="Stable Diffusion directory in diffusers' format, or a hub id; by default "
            "the bundled base, which has learned surfaces and defects that were drawn.",
        ),
    ] = None
    from_nothing: Annotated[
        bool,
        Field(description="Fine-tune a model that has learned nothing yet; it takes far longer."),
    ] = False
    out: Annotated[Path, Field(description="Directory of the run.")]
    data: Annotated[
        Path | None,
        Field(description="Dataset of good and defective images; see defectrt data inspect."),
    ] = None
    layout: Annotated[
        str | None,
        Field(
            description="How --data is laid out, recognised if left out: mvtec, loco, "
            "loco-classes, visa, pairs, folders, coco, yolo, voc, labelme, cvat or label-studio."
        ),
    ] = None
    split: Annotated[
        Path | None,
        Field(
            description="Train on one side of --data only: a file from defectrt data split, or a "
            "list that came with the dataset. What was used is in OUT/split.json."
        ),
    ] = None
    defect: Annotated[
        dict[str, Path],
        Field(
            description="Beside --data, or without it: images of one type of defect with their "
            "masks, name.jpg beside name.png or images/ beside masks/. Repeat for more types.",
            json_schema_extra={"metavar": "TYPE=DIR"},
        ),
    ] = {}  # noqa: RUF012
    good: Annotated[
        tuple[Path, ...],
        BeforeValidator(_several),
        Field(
            description="Folder of good images. Repeat for more.",
            json_schema_extra={"metavar": "DIR"},
        ),
    ] = ()
    mask_threshold: Annotated[
        int | None,
        Field(
            ge=1,
            le=65535,
            description="Mask pixels of at least this value are defect; otherwise all but 0, in a "
            "smeared mask from half its maximum on, or as the layout of --data says.",
        ),
    ] = None
    per_defect_type: Annotated[
        bool,
        Field(
            description="A model a defect type in OUT/TYPE, one after the other, as in the paper."
        ),
    ] = False
    checkpoint_every: Annotated[int, Field(ge=1, description="Steps between checkpoints.")] = 250
    keep_checkpoints: Annotated[
        int, Field(ge=1, description="Checkpoints to keep, the newest.")
    ] = 2
    preview_every: Annotated[
        int, Field(ge=0, description="Steps between images in OUT/previews; 0: none.")
    ] = 100
    preview_steps: Annotated[
        int, Field(ge=1, le=1000, description="Diffusion steps of the previews.")
    ] = 20
    tensorboard: Annotated[
        bool, Field(description="Also write OUT/tensorboard, if tensorboard is installed.")
    ] = True
    mlflow: Annotated[
        bool, Field(description="Also write to MLflow, where its own settings say.")
    ] = False
    device: Annotated[
        str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda, cuda:1, …")
    ] = "auto"
    threads: Annotated[
        int | None, Field(ge=1, description="CPU threads; one a core by default, and no more.")
    ] = None

    @model_validator(mode="after")
    def _run_goes_together(self) -> RunConfig:
        alone = [key for key in ("layout", "split") if getattr(self, key) and not self.data]
        if alone:
            raise ValueError(f"{', '.join(alone)}: only with --data, the dataset it is of")
        return self


def load_config(
    preset: str | None, file: Path | None, overrides: Mapping[str, Any]
) -> tuple[RunConfig, TrainConfig]:
    """The configuration: the preset, over it the file, over both the overrides.

    A key replaces the one below it whole. Raises `UsageError` listing everything that is wrong.
    """
    values = read_yaml(file) if file else {}
    named = values.pop("preset", None)
    preset = preset or named
    if preset is not None:
        if preset not in PRESETS:
            raise UsageError(f"preset {preset}: there are {', '.join(PRESETS)}")
        values = read_yaml(PRESETS[preset]) | values
    values |= overrides
    own = {key: values.pop(key) for key in RunConfig.model_fields if key in values}
    return _both(own, values)


def _both(own: dict[str, Any], rest: dict[str, Any]) -> tuple[RunConfig, TrainConfig]:
    made: list[Any] = []
    found: list[str] = []
    for model, values in ((RunConfig, own), (TrainConfig, rest)):
        try:
            made.append(model(**values))
        except UsageError as error:
            if not isinstance(error.__cause__, ValidationError):
                raise
            found += faults(error.__cause__, RunConfig, TrainConfig)
    if found:
        raise UsageError(message(found))
    return made[0], made[1]


def dump_config(run: RunConfig, training: TrainConfig) -> str:
    """The configuration as YAML that `load_config` reads back; paths made absolute."""
    absolute: dict[str, Any] = {
        "out": run.out.resolve(),
        "data": run.data and run.data.resolve(),
        "split": run.split and run.split.resolve(),
        "good": tuple(folder.resolve() for folder in run.good),
        "defect": {defect_type: folder.resolve() for defect_type, folder in run.defect.items()},
    }
    if run.model and Path(run.model).exists():
        absolute["model"] = str(Path(run.model).resolve())
    run = run.model_copy(update=absolute)
    values = run.model_dump(mode="json") | training.model_dump(mode="json", by_alias=True)
    return write_yaml(values)
