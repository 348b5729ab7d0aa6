"""``defectrt build-engine``. Torch is imported only when the command runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from defectrt.errors import UsageError
from defectrt.extras import requires

if TYPE_CHECKING:
    from ..backend import Backend

__all__ = ["build_engine"]


def build_engine(
    run: Annotated[Path, typer.Argument(help="Directory of a training run.")],
    out: Annotated[Path, typer.Option(help="Engine directory to write.")],
    steps: Annotated[
        list[int] | None,
        typer.Option(help="Steps of a schedule to include; repeat for more. The first is default."),
    ] = None,
    convention: Annotated[
        Literal["paper", "diffusers"],
        typer.Option(help="Inversion evaluates at (z_{t-1}, t-1): paper, or at t: diffusers."),
    ] = "diffusers",
    map_size: Annotated[
        int | None, typer.Option(help="Side of the attention map; by default up to 16 or h/4.")
    ] = None,
    defect: Annotated[
        list[str] | None,
        typer.Option(help="Kind of defect to include; repeat for more. By default all of the run."),
    ] = None,
    half_weights: Annotated[
        bool, typer.Option("--half-weights", help="Store weights as float16: half the size.")
    ] = False,
    backend: Annotated[
        Literal["onnx", "aoti", "tensorrt-rtx", "tensorrt"],
        typer.Option(
            help="onnx runs anywhere; aoti is compiled for this machine, and needs torch; "
            "tensorrt-rtx on RTX cards, and is built without one; tensorrt on the card that is "
            "here. No engine for a card has run on hardware so far."
        ),
    ] = "onnx",
    precision: Annotated[
        Literal["float32", "float16", "bfloat16"] | None,
        typer.Option(
            help="Of the U-Net, on cards; by default float16. tensorrt*: norms stay float32."
        ),
    ] = None,
    compute_capability: Annotated[
        list[int] | None,
        typer.Option(
            help="tensorrt-rtx: cards it is for: 75, 80, 86, 89 (RTX 40), 120 (RTX 50), 121; "
            "repeat for more. One engine serves all."
        ),
    ] = None,
    rows: Annotated[
        tuple[int, int] | None,
        typer.Option(help="tensorrt*: usual and most rows of a batch; by default 8 32."),
    ] = None,
    weight_streaming: Annotated[
        bool,
        typer.Option("--weight-streaming", help="tensorrt: weights may stay in host memory."),
    ] = False,
    standard_attention: Annotated[
        bool,
        typer.Option(
            "--standard-attention", help="tensorrt: its own cross-attention, not our kernel."
        ),
    ] = False,
    device: Annotated[
        Literal["cpu", "cuda"] | None,
        typer.Option(help="aoti: what to compile for; by default the CPU."),
    ] = None,
    bucket: Annotated[
        list[int] | None,
        typer.Option(
            help="aoti: size of a batch that is run, others are padded or split; repeat for more. "
            "By default any on a CPU; 2, 4 … 32 on a GPU, a CUDA graph each."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an engine.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Turn a fine-tuned model into an engine directory.

    Before it is finished, the engine is compared with the model on random rows; if they differ,
    nothing is written. For TensorRT, what is compared is the graphs that its plans were built from,
    on the CPU. An engine of the backend onnx needs no torch. All others are machine code, and run
    only where their fingerprint is trusted.

    Examples:

      defectrt build-engine runs/hole --out engines/hole

      defectrt build-engine runs/hole --out engines/hole --steps 50 --steps 20 --overwrite

      defectrt build-engine runs/hole --out engines/hole-rtx --backend tensorrt-rtx \\
        --compute-capability 89 --compute-capability 120

      defectrt build-engine runs/hole --out engines/hole-cpu --backend aoti
    """
    plans = {"tensorrt", "tensorrt-rtx"}
    options: dict[str, tuple[object, set[str]]] = {
        "--half-weights": (half_weights, {"onnx"}),
        "--precision": (precision, {"aoti", *plans}),
        "--device": (device, {"aoti"}),
        "--bucket": (bucket, {"aoti"}),
        "--compute-capability": (compute_capability, {"tensorrt-rtx"}),
        "--rows": (rows, plans),
        "--weight-streaming": (weight_streaming, {"tensorrt"}),
        "--standard-attention": (standard_attention, {"tensorrt"}),
    }
    if foreign := [
        name for name, (given, known) in options.items() if given and backend not in known
    ]:
        raise UsageError(f"--backend {backend} takes no {', no '.join(foreign)}")
    with requires("export"):
        from ..aoti import Aoti
        from ..build import build
        from ..graphs import Onnx
        from ..tensorrt.tensorrt import TensorRT
        from ..tensorrt.tensorrt_rtx import TensorRTRTX

    common = (precision or "float16", (1, *(rows or (8, 32))))
    chosen: Backend = Onnx(half_weights)
    if backend == "aoti":
        chosen = Aoti.of(device or "cpu", precision, tuple(bucket or ()))
    elif backend == "tensorrt-rtx":
        chosen = TensorRTRTX(*common, capabilities=tuple(compute_capability or ()))
    elif backend == "tensorrt":
        chosen = TensorRT(*common, plugin=not standard_attention, weight_streaming=weight_streaming)
    typer.echo(
        build(
            run,
            out,
            chosen,
            steps=tuple(steps or (50, 20, 10)),
            convention=convention,
            map_side=map_size,
            defects=tuple(defect or ()),
            overwrite=overwrite,
            quiet=quiet,
        )
    )
