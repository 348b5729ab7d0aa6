"""``defectrt verify``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import EngineError
from .text import megabytes

__all__ = ["verify"]


def verify(
    engine: Annotated[
        Path | None, typer.Argument(help="Engine directory; by default the bundled one.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The verdict as JSON.")] = False,
) -> None:
    """Check an engine directory: its manifest, and the size and hash of every file.

    Nothing is opened or executed. Exit code 0, or 4 with all faults in one message.

    Examples:

      defectrt verify engines/hole

      defectrt verify engines/hole --json
    """
    from ..engines.loading import BUNDLED_ENGINE
    from ..engines.manifest import verify as check

    directory = engine or BUNDLED_ENGINE
    verdict: dict[str, Any] = {"directory": str(directory), "intact": True, "fault": None}
    try:
        manifest = check(directory)
    except EngineError as error:
        if as_json:
            typer.echo(json.dumps(verdict | {"intact": False, "fault": str(error)}))
        raise
    size = sum(entry.size for entry in manifest.files.values())
    if as_json:
        typer.echo(json.dumps(verdict | {"files": len(manifest.files), "bytes": size}))
    else:
        typer.echo(f"{directory}: intact, {len(manifest.files)} files, {megabytes(size)}")
