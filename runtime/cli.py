"""The command line. Progress goes to standard error, results to standard output."""

from __future__ import annotations

import json
import os
import sys
import traceback
from dataclasses import asdict
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated

import typer

from . import __version__
from .errors import DefectRTError

__all__ = ["app", "main"]

#: Set to see the whole traceback of an error.
DEBUG = "DEFECTRT_DEBUG"

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Realistic, labelled defects in photographs of good parts, on your own machines.",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"defectrt {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command()
def synthesize(
    images: Annotated[Path, typer.Option(help="Folder of good pictures.")],
    out: Annotated[Path, typer.Option(help="Folder for the dataset.")],
    engine: Annotated[
        Path | None,
        typer.Option(help="Engine directory, made with build-engine; by default the one inside."),
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(
            help="Folder of masks: name.png or name_mask.png; not 0 is defect. "
            "Without it, masks are drawn to suit the kind."
        ),
    ] = None,
    defect: Annotated[
        str | None, typer.Option(help="Kind of defect; needed if the engine makes several.")
    ] = None,
    category: Annotated[str, typer.Option(help="Name of the part, a folder in OUT.")] = "parts",
    count: Annotated[int, typer.Option(help="Defects a picture.")] = 1,
    seed: Annotated[int, typer.Option(help="Another seed, other defects.")] = 0,
    steps: Annotated[
        int | None, typer.Option(help="DDIM steps; one of the engine's schedules.")
    ] = None,
    background: Annotated[
        str,
        typer.Option(help="replay: exactly the inverted background. dual: denoise it again."),
    ] = "replay",
    blend: Annotated[
        str,
        typer.Option(help="residual: add the change to the original. decoded: the model's pixels."),
    ] = "residual",
    refine: Annotated[
        str, typer.Option(help="Witness for the label: change, attention, both or none.")
    ] = "change",
    min_change: Annotated[
        float, typer.Option(help="Smallest change that counts as defect, share of the full range.")
    ] = 0.03,
    feather: Annotated[float, typer.Option(help="Width of the soft border in px.")] = 4.0,
    batch: Annotated[int, typer.Option(help="Pictures in the engine at once.")] = 4,
    threads: Annotated[int | None, typer.Option(help="CPU threads; all by default.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a stopped job.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The summary as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Put defects into pictures of good parts and write a labelled dataset.

    OUT gets the MVTec AD layout and manifest.jsonl. Outside a soft border around the mask every
    pixel is the original's. Exit codes: 0 all made, 7 some left out, 8 nothing made.

    Examples:

      defectrt synthesize --images good --out dataset --defect scratch

      defectrt synthesize --images good --masks masks --engine engines/hole --out dataset

      defectrt synthesize --images good --masks masks --engine engines/hole --out dataset
      --count 4 --seed 7 --steps 20
    """
    from .engine import DEFAULT_ENGINE
    from .refine import Refinement
    from .synthesize import Job
    from .synthesize import synthesize as run

    job = Job(
        defect=defect,
        count=count,
        seed=seed,
        steps=steps,
        background=background,  # type: ignore[arg-type]  # Job refuses other words
        blend=blend,  # type: ignore[arg-type]
        refinement=Refinement(method=refine, min_change=min_change),  # type: ignore[arg-type]
        feather=feather,
        batch=batch,
    )
    summary = run(
        images,
        out,
        job,
        engine=engine or DEFAULT_ENGINE,
        masks=masks,
        category=category,
        resume=resume,
        threads=threads,
        quiet=quiet,
    )
    if as_json:
        typer.echo(json.dumps(asdict(summary)))
    else:
        typer.echo(
            f"{out}: {summary.kept} of {summary.requested} samples kept, "
            f"{len(summary.empty)} without a defect, {len(summary.skipped)} pictures skipped"
        )
    summary.check()


def _add_commands_of_the_layers_above() -> None:
    """Training and export register their commands, so that nothing here imports upwards."""
    for entry in sorted(entry_points(group="defectrt.commands"), key=lambda e: e.name):
        app.command(entry.name)(entry.load())


def main() -> None:
    """Run the command line; exits with the code of the error, 0 without one, 2 for bad usage."""
    _add_commands_of_the_layers_above()
    try:
        app()
    except DefectRTError as error:
        sys.exit(_report(error, error.exit_code))
    except Exception as error:
        sys.exit(_report(error, 1))


def _report(error: Exception, code: int) -> int:
    if os.environ.get(DEBUG):
        traceback.print_exception(error)
    name = "" if isinstance(error, DefectRTError) else f"unexpected {type(error).__name__}: "
    print(f"error: {name}{error}", file=sys.stderr)
    if name:
        print(f"This is a fault in defectrt; set {DEBUG}=1 to see where.", file=sys.stderr)
    return code
