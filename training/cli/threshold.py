"""``defectrt threshold``: the threshold of a detector, and what is found at it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from defectrt.config.command_line import given, with_file, with_options

from ..thresholds.config import ThresholdConfig

__all__ = ["threshold"]


@with_options(ThresholdConfig)
def threshold(
    synthetic: Annotated[
        Path,
        typer.Argument(
            help="Synthetic defects: an output of synthesize, a folder of several, or any dataset "
            "with masks."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the card.")],
    config: Annotated[
        Path | None, typer.Option(help="YAML file; its keys are the options below, with _ for -.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The card as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
    **options: Any,
) -> None:
    """Find a detector's threshold for a wanted share of false alarms, and what it finds there.

    From good pictures held out, and synthetic defects: the threshold, which sizes and contrasts are
    found at it and how surely, and the defects at the limit. With --real, what real defects say to
    that, and which threshold they would have given. OUT gets threshold.json and report.html.

    Examples:

      defectrt threshold made --good held_out/good --scores scores --out card

      defectrt threshold made --good held_out/good --real held_out/defects --scores scores.csv
      --false-alarms 0.005 --out card

      defectrt threshold made --good held_out/good --detector 'python score.py {data} {out}'
      --out card
    """
    from ..thresholds.card import threshold_card
    from ..thresholds.card_page import share

    how = ThresholdConfig(**with_file(config, given(options, ThresholdConfig)))
    card = threshold_card(synthetic, how, out=out, quiet=quiet)
    if as_json:
        typer.echo(json.dumps(card))
        return
    for note in card["notes"]:
        typer.echo(f"note: {note}", err=True)
    t = card["threshold"]
    typer.echo(f"threshold      {t['value']:.9g} ({t['low']:.6g} to {t['high']:.6g})")
    typer.echo(f"false alarms   {share(card['false_alarms'])}")
    for name, group in card["groups"].items():
        typer.echo(f"{name + ' found':<14} {share(group['defects'])} of defects")
    typer.echo(out / "report.html")
