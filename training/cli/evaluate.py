"""``defectrt evaluate``: measure a run, or a dataset of made defects, beside real ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE
from rich.table import Table

from defectrt.config.command_line import given, with_file, with_options
from defectrt.errors import UsageError
from defectrt.extras import requires

from ..evaluation.config import PicturesConfig

if TYPE_CHECKING:
    from ..evaluation.heldout import Evaluation
from .data import Threshold, console

__all__ = ["evaluate"]

#: Options that a run alone, or a dataset alone, knows.
_OF_RUN: dict[str, Any] = {
    "split": None,
    "mask_threshold": None,
    "count": 16,
    "steps": 20,
    "batch_size": 4,
    "device": "cpu",
}
_OF_DATASET = {"training", "engine", "same", "most", "group", "near"}


@with_options(PicturesConfig)
def evaluate(
    made: Annotated[
        Path,
        typer.Argument(
            help="A dataset of made defects: an output of synthesize, a folder of several, or any "
            "with masks. Or a run, which makes some: a folder with run.json."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the figures and the page; of a RUN by default in it."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="YAML file; of a DATASET, its keys are the options below."),
    ] = None,
    split: Annotated[
        Path | None,
        typer.Option(help="Of a RUN: measure on this split's test side; by default RUN's, if any."),
    ] = None,
    mask_threshold: Threshold = None,
    count: Annotated[
        int, typer.Option(help="Of a RUN: masks of every defect type to paint under.", min=2)
    ] = 16,
    steps: Annotated[int, typer.Option(help="Of a RUN: DDIM steps each way.", min=1)] = 20,
    batch_size: Annotated[int, typer.Option(help="Of a RUN: crops at once.", min=1)] = 4,
    device: Annotated[str, typer.Option(help="Of a RUN: cpu, cuda, cuda:1, …")] = "cpu",
    threads: Annotated[
        int | None, typer.Option(help="CPU threads; one a core by default, and no more.", min=1)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The figures as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
    **options: Any,
) -> None:
    """Measure made defects, or the run that makes them, beside real ones it has not seen.

    Of a DATASET, for every type: KID, FID, diversity, how near made defects are to those that were
    learned from, whether a classifier tells them from real ones, and their sizes and contrasts.
    OUT gets evaluation.json and report.html. Every figure names the network that it was seen by.

    Of a RUN, for every type: the share of samples in which a defect appears, the error outside the
    mask, how much two results differ, and the same figures of crops that it makes, in
    pictures.json. Images that the run, or a run it builds on, has learned from are refused.

    Examples:

      defectrt evaluate made --real held_out --engine engines/part --out evaluation

      defectrt evaluate theirs --real held_out --training shots --same hole=MT_Blowhole
      --out evaluation

      defectrt evaluate runs/bottle --real data/bottle --split splits/bottle_0.json
    """
    of_run = {
        "split": split,
        "mask_threshold": mask_threshold,
        "count": count,
        "steps": steps,
        "batch_size": batch_size,
        "device": device,
    }
    chosen = given(options, PicturesConfig)
    if (made / "run.json").is_file():
        _run(made, out, chosen, of_run, threads, as_json=as_json, quiet=quiet)
        return
    if wrong := [name for name, value in of_run.items() if value != _OF_RUN[name]]:
        raise UsageError(f"{made}: is no run, for which alone --{_flags(wrong)} is")
    if out is None:
        raise UsageError("--out is needed: the folder for the figures and the page")
    how = PicturesConfig(**with_file(config, chosen))
    with requires("evaluate"):
        from ..evaluation.pictures import evaluate_pictures
        from ..threads import set_threads

        set_threads(threads)
        body = evaluate_pictures(made, how, out=out, quiet=quiet)
    if as_json:
        typer.echo(json.dumps(body))
        return
    for note in body["notes"]:
        typer.echo(f"note: {note}", err=True)
    _tell(body)
    typer.echo(out / "report.html")


def _run(
    run: Path,
    out: Path | None,
    chosen: Mapping[str, Any],
    of_run: Mapping[str, Any],
    threads: int | None,
    *,
    as_json: bool,
    quiet: bool,
) -> None:
    if wrong := sorted(chosen.keys() & _OF_DATASET):
        raise UsageError(f"{run}: is a run, for which --{_flags(wrong)} is not")
    if len(chosen.get("real", ())) != 1:
        raise UsageError("--real is needed once: a dataset with images the run has not seen")
    with requires("train"):
        from ..evaluation.heldout import evaluate as measure
        from ..threads import set_threads
    with requires("evaluate"):
        from ..evaluation.networks.opening import open_network
        from ..evaluation.pictures import evaluate_crops

        how = PicturesConfig(**chosen)
        for name in how.network:  # before anything is made
            open_network(name)
    from ..data.dataset import read_dataset
    from ..data.samples import GOOD, Sample
    from ..data.splits import read_split, samples_of
    from ..evaluation.material import Compared, as_compared

    set_threads(threads)
    dataset = read_dataset(how.real[0], how.layout, mask_threshold=of_run["mask_threshold"])
    own = run / "split.json"
    side = of_run["split"] or (own if own.is_file() else None)
    learned, types = list[Sample](), dict[str, Compared]()
    if side:
        halves = read_split(side, dataset)
        samples = samples_of(dataset, halves, "test")
        trained = {e.name for e in halves.train if e.defect_type != GOOD}
        learned = dataset.read([i for i in dataset.items if i.name in trained])
    else:
        samples = dataset.read(dataset.items)
    result = measure(
        run,
        samples,
        out=out,
        count=of_run["count"],
        steps=of_run["steps"],
        batch_size=of_run["batch_size"],
        seed=how.seed,
        device=of_run["device"],
        quiet=quiet,
        learned=learned,
        compared=lambda *cut: types.update({cut[0]: as_compared(*cut)}),
    )
    folder = out or run / "evaluation"
    body = evaluate_crops(run, types, how, out=folder, quiet=quiet)
    for note in body["notes"]:
        typer.echo(f"note: {note}", err=True)
    for defect_type, reason in result.skipped.items():
        typer.echo(f"note: {defect_type} is not measured: {reason}", err=True)
    if as_json:
        typer.echo(json.dumps(asdict(result) | {"pictures": body}))
        return
    console().print(_figures(result))
    _tell(body)
    typer.echo(folder)


def _tell(body: Mapping[str, Any]) -> None:
    """A table a network: figures of different ones are never side by side."""
    for network in body["networks"]:
        typer.echo(f"seen by {network['name']}")
        console().print(_pictures(body["types"], network["name"]))


def _flags(names: list[str]) -> str:
    return ", --".join(name.replace("_", "-") for name in names)


def _pictures(types: Mapping[str, Any], network: str) -> Table:
    """A line a type; how near what was learned from beside every other figure."""
    from ..evaluation.pictures_page import leakage

    table = Table(box=SIMPLE, pad_edge=False)
    heads = ("defect_type", "made", "real", "KID", "FID", "diversity", "told apart")
    for head in (*heads, "near what was learned from"):
        table.add_column(head, justify="left" if head == "defect_type" else "right")
    for name, found in types.items():
        figures, told = found["networks"][network], found["told_apart"]["defects"]
        kid, fid, diversity = (figures.get(k) for k in ("kid", "fid", "diversity"))
        table.add_row(
            name,
            str(found["made"]),
            str(found["real"]),
            f"{kid['value']:.3f} ({kid['low']:.3f} to {kid['high']:.3f})" if kid else "–",
            f"{fid['value']:.1f} of {fid['each']}" if fid else "–",
            f"{diversity['value']:.3f}" if diversity else "–",
            f"{told[1]:.0%}" if told else "too few",
            leakage(figures),
        )
    return table


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
