"""``defectrt bench``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from defectrt.config.command_line import given, with_options
from defectrt.config.engine import BATCH_SIZE, EngineConfig
from defectrt.extras import requires

__all__ = ["bench"]


@with_options(EngineConfig, leave=("engine", "trust"))
def bench(
    run: Annotated[
        Path | None,
        typer.Argument(help="Directory of a training run; by default random weights are timed."),
    ] = None,
    size: Annotated[str, typer.Option(help="Size of the random model.")] = "small",
    images: Annotated[int, typer.Option(help="Images a round.", min=1)] = 8,
    steps: Annotated[
        int, typer.Option(help="DDIM steps each way; the default way takes its own.", min=1)
    ] = 10,
    rounds: Annotated[int, typer.Option(help="Rounds, every way once in each.", min=1)] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="The report as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
    **options: Any,
) -> None:
    """Time the engine against the plain loop, on the same weights, in turns.

    The plain loop is diffusers, one image at a time, both branches of Eq. 9 in one batch. On a
    machine that does other work too, trust the ratio rather than the times.

    Examples:

      defectrt bench

      defectrt bench runs/scratch --images 16 --steps 50 --json
    """
    hardware = EngineConfig(**given(options, EngineConfig))
    with requires("export"):
        from defectrt.cores import threads_of

        from ..bench import bench as measure

    report = measure(
        run,
        size=size,
        images=images,
        steps=steps,
        rounds=rounds,
        batch_size=hardware.batch_size or BATCH_SIZE,
        threads=threads_of(hardware.threads),
        provider=hardware.provider,
        quiet=quiet,
    )
    typer.echo(json.dumps(asdict(report)) if as_json else report.table())
