"""``defectrt data``: look at a dataset before training on it, and split it, without torch."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from defectrt.errors import InputError, OutputError, PartialError, UsageError

__all__ = ["data"]

data = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Datasets to train on: what they hold, and which images to hold out.",
)


#: The names of `layouts.LAYOUTS`, which would bring in half the runtime just for a help text.
_LAYOUT_HELP = (
    "How the folder is laid out, recognised if left out: mvtec, loco, loco-classes, visa, pairs, "
    "folders, coco, yolo, voc, labelme, cvat or label-studio."
)


_Folder = Annotated[Path, typer.Argument(help="The dataset.", metavar="DIR")]


Layout = Annotated[str | None, typer.Option(help=_LAYOUT_HELP)]


Threshold = Annotated[
    int | None,
    typer.Option(help="Mask values from this on are defect, whatever the layout says.", min=1),
]


@data.command()
def inspect(
    folder: _Folder,
    layout: Layout = None,
    window: Annotated[
        int, typer.Option(help="Side of the crops that the model would see, in px.", min=1)
    ] = 512,
    mask_threshold: Threshold = None,
    as_json: Annotated[bool, typer.Option("--json", help="The report as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Show what is understood of a dataset: defect types, sizes, masks, and what is wrong with it.

    Every image and mask is decoded. Exit codes: 0 nothing is wrong, 7 there are problems, 3 the
    folder cannot be used at all.

    Examples:

      defectrt data inspect data/bottle

      defectrt data inspect data/tiles --window 256 --json
    """
    from ..data.dataset import read_dataset
    from ..data.inspection import inspect as look

    report = look(read_dataset(folder, layout, mask_threshold=mask_threshold), window, quiet=quiet)
    if as_json:
        typer.echo(json.dumps(asdict(report)))
    else:
        console().print(report.render(), soft_wrap=True)
    if not report.usable:
        raise InputError(f"{folder}: no image in it can be used")
    if report.problems:
        raise PartialError(
            f"{folder}: {len(report.problems)} problems; mend them, or make a split: it leaves out "
            "what cannot be used (defectrt data split)"
        )


@data.command()
def split(
    folder: _Folder,
    out: Annotated[Path, typer.Option(help="File to write, say split.json.")],
    fold: Annotated[
        int | None,
        typer.Option(help="Learn from one of two folds, 0 or 1, and measure on the other."),
    ] = None,
    shots: Annotated[
        int | None, typer.Option(help="Learn from this many images of every defect type.", min=1)
    ] = None,
    group_by: Annotated[
        str | None,
        typer.Option(
            help="Regular expression on the images' names: what its group matches is the "
            r"workpiece that is shown, as in 'tile(\d+)'. All images of one go to one side.",
            metavar="REGEX",
        ),
    ] = None,
    near: Annotated[
        int | None,
        typer.Option(
            help="With --group-by of a number: numbers that follow on each other by less than "
            "this are one workpiece.",
            min=1,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Another seed, another split.", min=0)] = 0,
    layout: Layout = None,
    mask_threshold: Threshold = None,
    as_json: Annotated[bool, typer.Option("--json", help="The counts as JSON.")] = False,
) -> None:
    """Divide a dataset into images to learn from and images to measure on.

    OUT holds the name and the hash of every image, for train --split and for evaluate. Images
    that cannot be used are left out and named there.

    Examples:

      defectrt data split data/bottle --fold 0 --out splits/bottle_0.json

      defectrt data split data/tiles --shots 5 --group-by 'num_(\\d+)' --near 200 --out few.json
    """
    from ..data.dataset import read_dataset
    from ..data.splits import SameWorkpiece, few_shot, write_split
    from ..data.splits import fold as two_folds

    if (fold is None) == (shots is None):
        raise UsageError("choose one of --fold and --shots")
    if near is not None and group_by is None:
        raise UsageError("--near needs --group-by, which finds the numbers")
    if out.exists():
        raise OutputError(f"{out}: already there; choose another --out")
    dataset = read_dataset(folder, layout, mask_threshold=mask_threshold)
    grouping = SameWorkpiece(group_by, near) if group_by else None
    if fold is not None:
        made = two_folds(dataset, fold, seed=seed, grouping=grouping)
    else:
        made = few_shot(dataset, shots or 1, seed=seed, grouping=grouping)
    write_split(made, out)
    for entry in made.left_out:
        typer.echo(f"left out: {entry.name}: {entry.reason}", err=True)
    for side, counts in made.counts().items():
        if missing := [
            defect_type for defect_type in dataset.defect_types if defect_type not in counts
        ]:
            typer.echo(f"note: no {', '.join(missing)} on the {side} side", err=True)
    if as_json:
        typer.echo(json.dumps(made.counts()))
        return
    for side, counts in made.counts().items():
        listed = ", ".join(f"{defect_type} {n}" for defect_type, n in sorted(counts.items()))
        typer.echo(f"{side}: {sum(counts.values())} images ({listed})")
    typer.echo(out)


@data.command()
def propose(
    folder: _Folder,
    good: Annotated[
        Path | None,
        typer.Option(help="Good images to compare with; by default those in DIR, by its names."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Propose masks for defective images that have none, for you to look at.

    What stands out from the good images is marked, in NAME_mask.png beside the image; change it in
    any editor. Where a file NAME.txt in YOLO's format lies beside the image, only what is in its
    boxes is. It finds small dark or bright defects, and not large faint ones.

    Exit codes: 0 every image has a mask now, 7 nothing stands out in some of them.

    Examples:

      defectrt data propose defects --good good
    """
    from ..data.proposals import propose as write
    from ..data.samples import read_good

    found = write(folder, read_good(good) if good else [], quiet=quiet)
    for name in found.nothing:
        typer.echo(f"{folder / name}: nothing stands out; draw its mask, or a box", err=True)
    typer.echo(f"{len(found.proposed)} masks proposed; look at them before you use them")
    if found.nothing:
        raise PartialError(f"{len(found.nothing)} images are without a mask")


def console() -> Console:
    """Tables are not cut off in a pipe, and are plain text: what drives a terminal is escaped."""
    terminal = Console().is_terminal
    return Console(color_system=None, width=None if terminal else 160)
