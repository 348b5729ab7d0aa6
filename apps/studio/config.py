"""How the studio is run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from defectrt.config.engine import EngineConfig

from ..service.config import ServeConfig

__all__ = ["AREAS", "StudioConfig"]


class StudioConfig(ServeConfig):
    """A service with pages, and where these keep what was dropped, drawn and begun."""

    port: Annotated[int, Field(ge=0, le=65535, description="Port; 0: any that is free.")] = 8766
    folder: Annotated[
        Path,
        Field(
            description="Folder for dropped pictures, drawn masks, learned engines and running "
            "commands."
        ),
    ] = Path("studio")
    browser: Annotated[bool, Field(description="Open the page in the browser.")] = True


#: The areas of the command, in the order in which they are shown.
AREAS = (StudioConfig, EngineConfig)
