"""``defectrt evaluate``: measure a run on what was held out."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE
from rich.table import Table

from defectrt.extras import requires

if TYPE_CHECKING:
    from ..evaluation.heldout import Evaluation
from .data import Layout, Threshold, console

__all__ = ["evaluate"]


def evaluate(
    run: Annotated[Path, typer.Argument(help="The run: a folder with run.json.", metavar="RUN")],
    data: Annotated[Path, typer.Option(help="Dataset with images the run has not seen.")],
    split: Annotated[
        Path | None,
        typer.Option(help="Measure on the test side of this split; by default RUN's, if any."),
    ] = None,
    layout: Layout = None,
    mask_threshold: Threshold = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the figures and samples; RUN/evaluation.")
    ] = None,
    count: Annotated[
        int, typer.Option(help="Masks of every defect type to paint under.", min=2)
    ] = 16,
    steps: Annotated[int, typer.Option(help="DDIM steps each way.", min=1)] = 20,
    batch_size: Annotated[int, typer.Option(help="Crops at once.", min=1)] = 4,
    seed: Annotated[int, typer.Option(help="Seed of crops and noise.", min=0)] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, …")] = "cpu",
    threads: Annotated[
        int | None, typer.Option(help="CPU threads; one a core by default, and no more.", min=1)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The figures as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Measure a run on held-out images: what it keeps and what it makes.

    For every defect type: the share of samples in which a defect appears, the error outside the
    mask, how much two results differ, and how near made defects are to real ones. Images that the
    run, or a run it builds on, has learned from are refused.

    Examples:

      defectrt evaluate runs/bottle --data data/bottle --split splits/bottle_0.json

      defectrt evaluate runs/tiles --data data/other_tiles --count 32 --json
    """
    with requires("train"):
        from ..evaluation.heldout import evaluate as measure
        from ..threads import set_threads
    from ..data.dataset import read_dataset
    from ..data.splits import read_split, samples_of

    set_threads(threads)
    dataset = read_dataset(data, layout, mask_threshold=mask_threshold)
    own = run / "split.json"
    chosen = split or (own if own.is_file() else None)
    if chosen:
        samples = samples_of(dataset, read_split(chosen, dataset), "test")
    else:
        samples = dataset.read(dataset.items)
    result = measure(
        run,
        samples,
        out=out,
        count=count,
        steps=steps,
        batch_size=batch_size,
        seed=seed,
        device=device,
        quiet=quiet,
    )
    for defect_type, reason in result.skipped.items():
        typer.echo(f"note: {defect_type} is not measured: {reason}", err=True)
    if as_json:
        typer.echo(json.dumps(asdict(result)))
    else:
        console().print(_figures(result))
        typer.echo(out or run / "evaluation")


def _figures(result: Evaluation) -> Table:
    table = Table(box=SIMPLE, pad_edge=False)
    heads = ("made", "shown", "latent error", "outside", "autoencoder", "diversity")
    names = ("contrast", "texture", "edge")
    for head in ("defect_type", *heads, *(f"{name} (real, distance)" for name in names)):
        table.add_column(head, justify="left" if head == "defect_type" else "right")
    for defect_type, f in result.defect_types.items():
        compared = (f"{f.made[n]:.3g} ({f.real[n]:.3g}, {f.distance[n]:.2f})" for n in names)
        levels = (f"{value:.2f}" for value in (f.outside, f.autoencoder, f.diversity))
        table.add_row(
            defect_type,
            str(f.samples),
            f"{100 * f.shown:.0f} %",
            f"{f.latent_error:.2g}",
            *levels,
            *compared,
        )
    return table
