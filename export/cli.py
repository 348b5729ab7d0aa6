"""``defectrt build-engine``. Torch is imported only when the command runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from defectrt.extras import requires

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
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an engine.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Turn a fine-tuned model into an engine directory.

    The engine needs no torch. Before it is finished, it is compared with the model on random
    rows; if they differ, nothing is written.

    Examples:

      defectrt build-engine runs/hole --out engines/hole

      defectrt build-engine runs/hole --out engines/hole --steps 50 --steps 20 --overwrite
    """
    with requires("export"):
        from .build import build

    typer.echo(
        build(
            run,
            out,
            steps=tuple(steps or (50, 20, 10)),
            convention=convention,
            map_side=map_size,
            defects=tuple(defect or ()),
            half_weights=half_weights,
            overwrite=overwrite,
            quiet=quiet,
        )
    )
