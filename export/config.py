"""What an engine is built as: the options of ``defectrt build-engine``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from defectrt.config.base import Config

__all__ = ["BUNDLED", "STEPS", "BuildConfig"]

_PLANS = ("tensorrt-rtx", "tensorrt")


def _for(*backends: str) -> dict[str, list[str]]:
    """Only these backends have the option."""
    return {"backends": list(backends)}


#: How the bundled engine was built, where it was not by default.
BUNDLED: dict[str, Any] = {"half_weights": True}
#: Steps of the schedules of an engine; the first is the default.
STEPS = (8, 4, 20, 50)


class BuildConfig(Config):
    """How a trained model becomes an engine."""

    steps: Annotated[
        tuple[int, ...],
        Field(
            min_length=1,
            description="Steps of a schedule to include; repeat for more. The first is default.",
        ),
    ] = STEPS
    solver: Annotated[
        Literal["ddim", "dpmsolver++"],
        Field(
            description="How generation steps: dpmsolver++ is of second order and needs fewer "
            "steps, ddim is the paper's."
        ),
    ] = "dpmsolver++"
    convention: Annotated[
        Literal["paper", "diffusers"],
        Field(description="Inversion evaluates at (z_{t-1}, t-1): paper, or at t: diffusers."),
    ] = "paper"
    map_size: Annotated[
        int | None,
        Field(ge=1, description="Side of the attention map; by default up to 16 or h/4."),
    ] = None
    defect: Annotated[
        tuple[str, ...],
        Field(description="Type of defect to include; repeat for more. By default all of the run."),
    ] = ()
    backend: Annotated[
        Literal["onnx", "aoti", "tensorrt-rtx", "tensorrt"],
        Field(
            description="onnx runs anywhere; aoti is compiled for this machine, and needs torch. "
            "Experimental, never run on a card: tensorrt-rtx for RTX cards, built without one; "
            "tensorrt for the card that is here."
        ),
    ] = "onnx"
    half_weights: Annotated[
        bool,
        Field(
            description="onnx: store weights as float16, half the size; arithmetic stays float32.",
            json_schema_extra=_for("onnx"),
        ),
    ] = False
    precision: Annotated[
        Literal["float32", "float16", "bfloat16"] | None,
        Field(
            description="Of the U-Net's arithmetic; by default float16 on cards, float32 on CPUs "
            "and for onnx, whose float16 is for --provider cuda and slow on a CPU. onnx, "
            "tensorrt*: norms stay float32.",
            json_schema_extra=_for("onnx", "aoti", *_PLANS),
        ),
    ] = None
    device: Annotated[
        Literal["cpu", "cuda"] | None,
        Field(
            description="aoti: what to compile for; by default the CPU.",
            json_schema_extra=_for("aoti"),
        ),
    ] = None
    batch_size: Annotated[
        tuple[int, ...],
        Field(
            description="Rows of a batch; repeat for more. aoti: sizes that are run, others are "
            "padded or split; by default any on a CPU, and 2, 4 … 32 on a GPU, a CUDA graph each. "
            "tensorrt*: the usual and the largest size; by default 8 and 32.",
            json_schema_extra=_for("aoti", *_PLANS),
        ),
    ] = ()
    compute_capability: Annotated[
        tuple[int, ...],
        Field(
            description="tensorrt-rtx: cards it is for: 75, 80, 86, 89 (RTX 40), 120 (RTX 50), "
            "121; repeat for more. One engine serves all.",
            json_schema_extra=_for("tensorrt-rtx"),
        ),
    ] = ()
    weight_streaming: Annotated[
        bool,
        Field(
            description="tensorrt: weights may stay in host memory.",
            json_schema_extra=_for("tensorrt"),
        ),
    ] = False
    standard_attention: Annotated[
        bool,
        Field(
            description="tensorrt: its own cross-attention, not our kernel.",
            json_schema_extra=_for("tensorrt"),
        ),
    ] = False

    @model_validator(mode="after")
    def _fits_the_backend(self) -> BuildConfig:
        foreign = [
            f"--{name.replace('_', '-')}"
            for name, field in type(self).model_fields.items()
            if isinstance(field.json_schema_extra, dict)
            and getattr(self, name)
            and self.backend not in field.json_schema_extra["backends"]  # type: ignore[operator]
        ]
        if foreign:
            raise ValueError(f"--backend {self.backend} takes no {', no '.join(foreign)}")
        if self.backend == "onnx" and self.precision == "bfloat16":
            raise ValueError("precision: onnx is float32 or float16; a CPU cannot check bfloat16")
        if self.half_weights and self.precision == "float16":
            raise ValueError("half_weights: --precision float16 stores them so already")
        if self.backend in _PLANS and len(self.batch_size) not in (0, 2):
            raise ValueError("batch_size: two sizes for TensorRT, the usual and the largest")
        return self
