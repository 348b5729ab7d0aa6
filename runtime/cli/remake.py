"""``defectrt remake``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..config.command_line import given, with_options
from ..config.engine import EngineConfig
from ..config.masks import MaskConfig
from ..errors import InputError

__all__ = ["remake"]


@with_options(EngineConfig, MaskConfig)
def remake(
    picture: Annotated[Path, typer.Argument(help="A picture of a dataset.")],
    images: Annotated[Path, typer.Option(help="The folder of good images that it was made from.")],
    out: Annotated[
        Path | None, typer.Option(help="File for the picture that is made; by default none.")
    ] = None,
    **options: Any,
) -> None:
    """Make a picture again from what it says of itself, and compare it bit for bit.

    Options are those that name files, if it was made with any: --masks, --within and the like.
    Exit code 0 if it is the same, 3 if it differs, with what does.

    Example:

      defectrt remake data/parts/test/hole/000.png --images good
    """
    values = given(options, EngineConfig, MaskConfig)

    from ..files import write_whole
    from ..synthesis.remake import remake as run

    made = run(picture, images, **values)
    if out:
        write_whole(out, made.png)
    if made.differing:
        raise InputError(
            f"{picture}: differs in {made.differing} px, by up to {made.largest} levels; another "
            "version, processor or provider rounds otherwise, or the picture was changed"
        )
    typer.echo(f"{picture}: the same, bit for bit")
