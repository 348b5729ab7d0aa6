"""``defectrt studio``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from defectrt.config.command_line import given, keys, with_file, with_options
from defectrt.config.engine import EngineConfig
from defectrt.extras import requires

from ..studio.config import AREAS, StudioConfig

__all__ = ["studio"]


@with_options(*AREAS)
def studio(
    config: Annotated[
        Path | None, typer.Option(help="YAML file; its keys are the options below, with _ for -.")
    ] = None,
    **options: Any,
) -> None:
    """Make, learn, review and prove in the browser, without a network.

    Opens the page by itself. What it runs are this program's own commands, one after another;
    they go on when the page is closed or the studio ends. It is defectrt serve with pages, and
    takes its options. The link that it prints holds a token: who has it can read and write
    pictures as you can.

    Examples:

      defectrt studio

      defectrt studio --engine engines/part --folder /data/studio

      defectrt studio --no-browser --port 9000
    """
    values = with_file(config, given(options, *AREAS))
    names = {key for key, _ in keys(EngineConfig)}
    engine = EngineConfig(**{key: value for key, value in values.items() if key in names})
    how = StudioConfig(**{key: value for key, value in values.items() if key not in names})
    with requires("studio"):
        from ..studio.server import run

    run(how, engine)
