"""``defectrt series``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from ..config.command_line import given, with_file, with_options
from ..config.series import SERIES_AREAS, SeriesConfig

__all__ = ["series"]


@with_options(*SERIES_AREAS)
def series(
    config: Annotated[
        Path | None, typer.Option(help="YAML file; its keys are the options below, with _ for -.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The grades as JSON.")] = False,
    **options: Any,
) -> None:
    """Make limit samples: one defect on one image, at graded sizes and strengths.

    OUT gets the images, the masks of their labels, series.csv with a line a grade, and sheet.png
    with all of them, a row a size. Place, shape and noise are the same in all.

    Examples:

      defectrt series --image good.jpg --defect crack --out limits

      defectrt series --image good.jpg --mask mask.png --engine engines/part --defect pit
      --sizes 8,16,32 --strengths 0.1,0.2,0.4,0.8 --out limits
    """
    wanted = SeriesConfig(**with_file(config, given(options, *SERIES_AREAS)))

    from ..synthesis.series import series as run

    grades = run(wanted)
    if as_json:
        typer.echo(json.dumps([asdict(grade) for grade in grades]))
        return
    for grade in grades:
        what = grade.fault or f"strength {grade.strength:.3f}, {grade.area} px"
        typer.echo(f"{grade.size} px, {grade.wanted:g} wanted: {what}")
    typer.echo(f"{wanted.out}: {sum(not g.fault for g in grades)} of {len(grades)} made")
