"""``defectrt data``: look at a dataset before training on it, and split it, without torch.

``defectrt evaluate``: measure a run on what was held out.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from defectrt.errors import InputError, OutputError, PartialError, UsageError
from defectrt.extras import requires

if TYPE_CHECKING:
    from .heldout import Evaluation

__all__ = ["data", "evaluate"]

data = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Datasets to train on: what they hold, and which pictures to hold out.",
)

#: The names of `layouts.LAYOUTS`, which would bring in half the runtime just for a help text.
_LAYOUT_HELP = (
    "How the folder is laid out, recognised if left out: mvtec, loco, loco-classes, visa, pairs "
    "or folders."
)
_Folder = Annotated[Path, typer.Argument(help="The dataset.", metavar="DIR")]
_Layout = Annotated[str | None, typer.Option(help=_LAYOUT_HELP)]
_Threshold = Annotated[
    int | None,
    typer.Option(help="Mask values from this on are defect, whatever the layout says.", min=1),
]


@data.command()
def inspect(
    folder: _Folder,
    layout: _Layout = None,
    window: Annotated[
        int, typer.Option(help="Side of the crops that the model would see, in px.", min=1)
    ] = 512,
    mask_threshold: _Threshold = None,
    as_json: Annotated[bool, typer.Option("--json", help="The report as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Show what is understood of a dataset: kinds, sizes, masks, and what is wrong with it.

    Every picture and mask is decoded. Exit codes: 0 nothing is wrong, 7 there are problems, 3 the
    folder cannot be used at all.

    Examples:

      defectrt data inspect data/bottle

      defectrt data inspect data/tiles --window 256 --json
    """
    from .dataset import read_dataset
    from .inspection import inspect as look

    report = look(read_dataset(folder, layout, mask_threshold=mask_threshold), window, quiet=quiet)
    if as_json:
        typer.echo(json.dumps(asdict(report)))
    else:
        _console().print(report.render(), soft_wrap=True)
    if not report.usable:
        raise InputError(f"{folder}: no picture in it can be used")
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
        int | None, typer.Option(help="Learn from this many pictures of every kind.", min=1)
    ] = None,
    group_by: Annotated[
        str | None,
        typer.Option(
            help="Regular expression on the pictures' names: what its group matches is the part "
            r"that is shown, as in 'part(\d+)'. All pictures of a part go to one side.",
            metavar="REGEX",
        ),
    ] = None,
    near: Annotated[
        int | None,
        typer.Option(
            help="With --group-by of a number: numbers that follow on each other by less than "
            "this are one part.",
            min=1,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Another seed, another split.", min=0)] = 0,
    layout: _Layout = None,
    mask_threshold: _Threshold = None,
    as_json: Annotated[bool, typer.Option("--json", help="The counts as JSON.")] = False,
) -> None:
    """Divide a dataset into pictures to learn from and pictures to measure on.

    OUT holds the name and the hash of every picture, for train --split and for evaluate. Pictures
    that cannot be used are left out and named there.

    Examples:

      defectrt data split data/bottle --fold 0 --out splits/bottle_0.json

      defectrt data split data/tiles --shots 5 --group-by 'num_(\\d+)' --near 200 --out few.json
    """
    from .dataset import read_dataset
    from .splits import SamePart, few_shot, write_split
    from .splits import fold as two_folds

    if (fold is None) == (shots is None):
        raise UsageError("choose one of --fold and --shots")
    if near is not None and group_by is None:
        raise UsageError("--near needs --group-by, which finds the numbers")
    if out.exists():
        raise OutputError(f"{out}: already there; choose another --out")
    dataset = read_dataset(folder, layout, mask_threshold=mask_threshold)
    grouping = SamePart(group_by, near) if group_by else None
    if fold is not None:
        made = two_folds(dataset, fold, seed=seed, grouping=grouping)
    else:
        made = few_shot(dataset, shots or 1, seed=seed, grouping=grouping)
    write_split(made, out)
    for entry in made.left_out:
        typer.echo(f"left out: {entry.name}: {entry.reason}", err=True)
    for side, counts in made.counts().items():
        if missing := [kind for kind in dataset.kinds if kind not in counts]:
            typer.echo(f"note: no {', '.join(missing)} on the {side} side", err=True)
    if as_json:
        typer.echo(json.dumps(made.counts()))
        return
    for side, counts in made.counts().items():
        listed = ", ".join(f"{kind} {n}" for kind, n in sorted(counts.items()))
        typer.echo(f"{side}: {sum(counts.values())} pictures ({listed})")
    typer.echo(out)


def evaluate(
    run: Annotated[Path, typer.Argument(help="The run: a folder with run.json.", metavar="RUN")],
    data: Annotated[Path, typer.Option(help="Dataset with pictures the run has not seen.")],
    split: Annotated[
        Path | None,
        typer.Option(help="Measure on the test side of this split; by default RUN's, if any."),
    ] = None,
    layout: _Layout = None,
    mask_threshold: _Threshold = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the figures and samples; RUN/evaluation.")
    ] = None,
    count: Annotated[int, typer.Option(help="Masks of every kind to paint under.", min=2)] = 16,
    steps: Annotated[int, typer.Option(help="DDIM steps each way.", min=1)] = 20,
    batch: Annotated[int, typer.Option(help="Crops at once.", min=1)] = 4,
    seed: Annotated[int, typer.Option(help="Seed of crops and noise.", min=0)] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, …")] = "cpu",
    threads: Annotated[int | None, typer.Option(help="CPU threads; all by default.", min=1)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The figures as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Measure a run on held-out pictures: what it keeps and what it makes.

    For every kind: the share of samples in which a defect appears, the error outside the mask,
    how much two results differ, and how near made defects are to real ones. Pictures that the
    run, or a run it builds on, has learned from are refused.

    Examples:

      defectrt evaluate runs/bottle --data data/bottle --split splits/bottle_0.json

      defectrt evaluate runs/tiles --data data/other_tiles --count 32 --json
    """
    with requires("train"):
        import torch

        from .heldout import evaluate as measure
    from .dataset import read_dataset
    from .splits import read_split

    if threads:
        torch.set_num_threads(threads)
    dataset = read_dataset(data, layout, mask_threshold=mask_threshold)
    own = run / "split.json"
    chosen = split or (own if own.is_file() else None)
    if chosen:
        samples = dataset.samples(read_split(chosen, dataset), "test")
    else:
        samples = dataset.read(dataset.items)
    result = measure(
        run,
        samples,
        out=out,
        count=count,
        steps=steps,
        batch=batch,
        seed=seed,
        device=device,
        quiet=quiet,
    )
    for kind, reason in result.skipped.items():
        typer.echo(f"note: {kind} is not measured: {reason}", err=True)
    if as_json:
        typer.echo(json.dumps(asdict(result)))
    else:
        _console().print(_figures(result))
        typer.echo(out or run / "evaluation")


def _figures(result: Evaluation) -> Table:
    table = Table(box=SIMPLE, pad_edge=False)
    heads = ("made", "shown", "latent error", "outside", "autoencoder", "diversity")
    names = ("contrast", "texture", "edge")
    for head in ("kind", *heads, *(f"{name} (real, distance)" for name in names)):
        table.add_column(head, justify="left" if head == "kind" else "right")
    for kind, f in result.kinds.items():
        compared = (f"{f.made[n]:.3g} ({f.real[n]:.3g}, {f.distance[n]:.2f})" for n in names)
        levels = (f"{value:.2f}" for value in (f.outside, f.autoencoder, f.diversity))
        table.add_row(
            kind,
            str(f.samples),
            f"{100 * f.shown:.0f} %",
            f"{f.latent_error:.2g}",
            *levels,
            *compared,
        )
    return table


def _console() -> Console:
    """Tables are not cut off in a pipe."""
    console = Console()
    return console if console.is_terminal else Console(width=160)
