"""``defectrt review``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["review"]


def review(
    out: Annotated[Path, typer.Argument(help="A finished dataset.")],
    decisions: Annotated[
        Path, typer.Argument(help="File of decisions, as the dataset's report.html saves it.")
    ],
    by: Annotated[
        str | None, typer.Option(help="Who decided; by default as the file says.")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait if another process is writing to OUT.")
    ] = False,
) -> None:
    """Take refused samples out of a dataset, bring them back, or correct their labels.

    Open OUT/report.html, refuse what should not be learned from, save the decisions and carry them
    out with this command; defectrt studio does both, and corrects labels with a brush. What is
    refused goes to OUT/refused, is never made again, and comes back if a later file keeps it; a
    label that is corrected goes to OUT/made-labels. All formats are written anew. The journal says
    who decided.

    Examples:

      defectrt review data decisions.json

      defectrt review data decisions.json --by "A. Inspector"
    """
    from ..output.review import read_decisions
    from ..output.review import review as run

    name, decided = read_decisions(decisions)
    done = run(out, decided, by=by or name, wait=wait)
    said = f"{done.refused} refused, {done.restored} restored, {done.kept} kept"
    if done.relabelled:
        said += f", {done.relabelled} with another label"
    typer.echo(f"{out}: {said}")
