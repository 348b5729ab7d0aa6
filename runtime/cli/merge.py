"""``defectrt merge``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..config.command_line import given, with_options
from ..config.job import FormatConfig

__all__ = ["merge"]


@with_options(FormatConfig)
def merge(
    folders: Annotated[list[Path], typer.Argument(help="Finished datasets, two or more.")],
    out: Annotated[Path, typer.Option(help="Folder for the new dataset.")],
    category: Annotated[
        str | None, typer.Option(help="Name of the workpiece, needed if the folders' differ.")
    ] = None,
    **options: Any,
) -> None:
    """Join finished datasets to a new one.

    Samples and good images are numbered anew, what is there twice is taken once, and COCO and YOLO
    are written again; the folders themselves stay as they are. All shards of one job become what it
    would have made in one run, byte for byte. To add a type of defect to a
    dataset, run `defectrt synthesize` on it with that type instead.

    Examples:

      defectrt merge data/line1 data/line2 --out data/both

      defectrt merge cracks holes --out both --format coco,yolo

      defectrt merge data-1 data-2 data-3 --out data
    """
    config = FormatConfig(**given(options, FormatConfig))

    from ..output.formats import splitting_of
    from ..output.merge import merge as run

    kept = run(
        folders, out, category=category, formats=config.formats, splitting=splitting_of(config)
    )
    typer.echo(f"{out}: {kept} samples of {len(folders)} datasets")
