"""``defectrt inspect``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["inspect"]


def inspect(
    picture: Annotated[Path, typer.Argument(help="A picture of a dataset.")],
    as_json: Annotated[bool, typer.Option("--json", help="All of it as JSON.")] = False,
) -> None:
    """Tell from a made picture alone how it was made: engine, source, number, type, options.

    Exit code 3 for a picture that does not say so.

    Example:

      defectrt inspect data/parts/test/hole/000.png
    """
    from ..output.mark import read_mark

    mark = read_mark(picture).model_dump()
    if as_json:
        typer.echo(json.dumps(mark, indent=1))
        return
    for key, value in mark.items():
        text = value if isinstance(value, str) else json.dumps(value)
        typer.echo(f"{key:<14} {text}")
