"""``defectrt build-engine``. Torch is imported only when the command runs."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from defectrt.cli_engines import ProviderName
from defectrt.extras import requires

__all__ = ["bench", "build_engine"]


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
        from .graphs import Onnx

    typer.echo(
        build(
            run,
            out,
            Onnx(half_weights),
            steps=tuple(steps or (50, 20, 10)),
            convention=convention,
            map_side=map_size,
            defects=tuple(defect or ()),
            overwrite=overwrite,
            quiet=quiet,
        )
    )


def bench(
    run: Annotated[
        Path | None,
        typer.Argument(help="Directory of a training run; by default random weights are timed."),
    ] = None,
    size: Annotated[str, typer.Option(help="Size of the random model.")] = "small",
    pictures: Annotated[int, typer.Option(help="Pictures a round.", min=1)] = 8,
    steps: Annotated[int, typer.Option(help="DDIM steps each way.", min=1)] = 10,
    rounds: Annotated[int, typer.Option(help="Rounds, every way once in each.", min=1)] = 3,
    batch: Annotated[int, typer.Option(help="Rows in the engine at once.", min=1)] = 4,
    threads: Annotated[int | None, typer.Option(help="CPU threads; all by default.", min=1)] = None,
    provider: Annotated[
        ProviderName | None,
        typer.Option(help="What the engine runs on; the plain loop stays on the CPU."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The report as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Time the engine against the plain loop, on the same weights, in turns.

    The plain loop is diffusers, one picture at a time, both branches of Eq. 9 in one batch. On a
    machine that does other work too, trust the ratio rather than the times.

    Examples:

      defectrt bench

      defectrt bench runs/scratch --pictures 16 --steps 50 --json
    """
    with requires("export"):
        from defectrt.engine import cores

        from .bench import bench as measure

    report = measure(
        run,
        size=size,
        pictures=pictures,
        steps=steps,
        rounds=rounds,
        batch=batch,
        threads=threads or cores(),
        provider=provider,
        quiet=quiet,
    )
    typer.echo(json.dumps(asdict(report)) if as_json else report.table())
