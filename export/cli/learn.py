"""``defectrt learn``. Torch is imported only when the command runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from defectrt.extras import requires

__all__ = ["learn"]


def learn(
    defects: Annotated[
        Path,
        typer.Argument(
            help="Dataset of real defects with masks: MVTec's layout, a folder a type, pictures "
            "beside masks."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Engine directory to write.")],
    good: Annotated[Path | None, typer.Option(help="Folder of good pictures.")] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Stable Diffusion to start from, with LoRA; by default the bundled base."
        ),
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="Folder for the training run; by default OUT-run.")
    ] = None,
    layout: Annotated[
        str | None, typer.Option(help="How DEFECTS is laid out; see defectrt data inspect.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Steps of training; chosen if left out.")
    ] = None,
    preview_every: Annotated[
        int, typer.Option(min=0, help="Steps between previews in the run; 0: none.")
    ] = 100,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, …")] = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads; one a core by default, and no more.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of training and of the sheet.")] = 0,
    tune: Annotated[
        float | None,
        typer.Option(
            help="Then choose, so many minutes long, how the engine paints and how its pictures "
            "are used, by the gain on held-out examples; OUT-run/tuned gets what was tried, and "
            "synthesize.yaml for synthesize --config.",
            metavar="MINUTES",
            min=0,
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an engine.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Warnings alone.")] = False,
) -> None:
    """Learn from a handful of your own defects: an engine, and a sheet of real beside made ones.

    Looks at the defects and says what it chooses and why; trains the bundled base on them, holds
    examples back where there are enough, and takes the weights that did best on those; builds the
    engine, which then draws its masks around the examples' own shapes. Whatever stops it, the same
    command goes on. 500 steps take some ten minutes on two cores.

    Examples:

      defectrt learn defects --good good --out engines/part

      defectrt learn bottle --out engines/bottle

      defectrt learn defects --good good --out engines/part --tune 60

      defectrt learn defects --good good --out engines/part --model models/sd15 --device cuda
    """
    with requires("export"):
        from ..learn import learn as run_all
    typer.echo(
        run_all(
            defects,
            good,
            out=out,
            model=model,
            run=run,
            layout=layout,
            steps=steps,
            preview_every=preview_every,
            device=device,
            threads=threads,
            seed=seed,
            tune=tune,
            overwrite=overwrite,
            quiet=quiet,
        )
    )
