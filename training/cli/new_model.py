"""``defectrt new-model``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from defectrt.errors import InputError, OutputError
from defectrt.extras import requires

__all__ = ["new_model"]


def new_model(
    out: Annotated[Path, typer.Option(help="Directory to write the model to.")],
    size: Annotated[
        str,
        typer.Option(
            help="tiny (32 px, for tests), small or colour (64 px), surfaces (96 px) or "
            "surfaces-256."
        ),
    ] = "small",
    prediction_type: Annotated[
        str, typer.Option(help="epsilon, v_prediction or sample.")
    ] = "epsilon",
    seed: Annotated[int, typer.Option(help="Seed of the random weights.")] = 0,
) -> None:
    """Make a small Stable Diffusion model of random weights, offline.

    It has the format of the large ones, so everything else works on it unchanged.

    Examples:

      defectrt new-model --out models/blank

      defectrt new-model --size tiny --out models/tiny
    """
    with requires("train"):
        from ..models.stable_diffusion import SIZES, hide_progress_bars
        from ..models.stable_diffusion import new_model as make
    hide_progress_bars()
    if size not in SIZES:
        raise InputError(f"--size {size}: there are {', '.join(SIZES)}")
    if prediction_type not in ("epsilon", "v_prediction", "sample"):
        raise InputError(f"--prediction-type {prediction_type}: epsilon, v_prediction or sample")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out}: already there; choose another --out")
    model = make(SIZES[size], prediction_type=prediction_type, seed=seed)
    try:
        model.save(out)
    except OSError as error:
        raise OutputError(f"{out}: the model cannot be written: {error}") from error
    typer.echo(out)
