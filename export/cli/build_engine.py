"""``defectrt build-engine``. Torch is imported only when the command runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from defectrt.config.command_line import given, with_file, with_options
from defectrt.extras import requires

from ..config import BUNDLED, BuildConfig

__all__ = ["build_engine"]


@with_options(BuildConfig)
def build_engine(
    out: Annotated[Path, typer.Option(help="Engine directory to write.")],
    run: Annotated[
        Path | None,
        typer.Argument(help="Directory of a training run; without it, the bundled base."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML file; its keys are the options below, with _ for -.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an engine.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
    **options: Any,
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

      defectrt build-engine --out engines/bundled
    """
    chosen = with_file(config, given(options, BuildConfig))
    how = BuildConfig(**(BUNDLED if run is None and not chosen else {}) | chosen)
    with requires("export"):
        from defectrt.training.bundled import BUNDLED_RUN

        from ..backends import open_backend
        from ..build import build

    typer.echo(
        build(
            run or BUNDLED_RUN,
            out,
            open_backend(how),
            steps=how.steps,
            solver=how.solver,
            convention=how.convention,
            map_side=how.map_size,
            defects=how.defect,
            overwrite=overwrite,
            quiet=quiet,
        )
    )
