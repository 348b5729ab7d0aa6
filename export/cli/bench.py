"""``defectrt bench``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from defectrt.cli.options import ProviderName
from defectrt.extras import requires

if TYPE_CHECKING:
    pass

__all__ = ["bench"]


def bench(
    run: Annotated[
        Path | None,
        typer.Argument(help="Directory of a training run; by default random weights are timed."),
    ] = None,
    size: Annotated[str, typer.Option(help="Size of the random model.")] = "small",
    images: Annotated[int, typer.Option(help="Images a round.", min=1)] = 8,
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

    The plain loop is diffusers, one image at a time, both branches of Eq. 9 in one batch. On a
    machine that does other work too, trust the ratio rather than the times.

    Examples:

      defectrt bench

      defectrt bench runs/scratch --images 16 --steps 50 --json
    """
    with requires("export"):
        from defectrt.engines.engine import cores

        from ..bench import bench as measure

    report = measure(
        run,
        size=size,
        images=images,
        steps=steps,
        rounds=rounds,
        batch=batch,
        threads=threads or cores(),
        provider=provider,
        quiet=quiet,
    )
    typer.echo(json.dumps(asdict(report)) if as_json else report.table())
