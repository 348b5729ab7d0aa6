"""``defectrt synthesize``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from . import app
from . import info as cli_engines

__all__ = []


@app.command()
def synthesize(
    images: Annotated[Path, typer.Option(help="Folder of good images.")],
    out: Annotated[Path, typer.Option(help="Folder for the dataset.")],
    engine: Annotated[
        Path | None,
        typer.Option(help="Engine directory, made with build-engine; by default the bundled one."),
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(
            help="Folder of masks: name.png or name_mask.png; not 0 is defect. "
            "Without it, masks are drawn to suit the defect type."
        ),
    ] = None,
    mask_bank: Annotated[
        Path | None,
        typer.Option(help="Folder of real defects' masks, to be turned, scaled and placed anew."),
    ] = None,
    shape: Annotated[
        str | None,
        typer.Option(
            help="What to draw as masks: scratch, crack, spot, blob, perlin, dent, hole, particle "
            "or stain; by default what suits the type of defect."
        ),
    ] = None,
    instances: Annotated[
        int, typer.Option(help="Masks a sample, drawn or from the bank, apart.", min=1)
    ] = 1,
    mask_scale: Annotated[
        tuple[float, float],
        typer.Option(help="Smallest and largest scale of a mask from the bank."),
    ] = (0.8, 1.25),
    within: Annotated[
        str | None,
        typer.Option(
            metavar="foreground|PATH",
            help="Where a defect may be: on the part before its background (foreground), or where "
            "a folder of region masks, or one region mask for all, is not 0. A mask lies whole in "
            "its region or the image is skipped.",
        ),
    ] = None,
    golden: Annotated[
        Path | None,
        typer.Option(
            help="An image of the part on which --legal and --forbidden were drawn; they are "
            "found again in every image, and where that is not sure, the image is skipped."
        ),
    ] = None,
    legal: Annotated[
        Path | None, typer.Option(help="Mask on the golden image: a defect may be here.")
    ] = None,
    forbidden: Annotated[
        Path | None, typer.Option(help="Mask on the golden image: no defect may be here.")
    ] = None,
    margin: Annotated[
        int | None,
        typer.Option(
            help="Px around a mask that have to be legal too; by default the soft border.", min=0
        ),
    ] = None,
    defect: Annotated[
        str | None, typer.Option(help="Kind of defect; needed if the engine makes several.")
    ] = None,
    category: Annotated[str, typer.Option(help="Name of the part, a folder in OUT.")] = "parts",
    count: Annotated[int, typer.Option(help="Defects an image.", min=1)] = 1,
    candidates: Annotated[int, typer.Option(help="Tries a defect; the best is kept.", min=1)] = 1,
    seed: Annotated[int, typer.Option(help="Another seed, other defects.")] = 0,
    steps: Annotated[
        int | None, typer.Option(help="DDIM steps; one of the engine's schedules.")
    ] = None,
    background: Annotated[
        Literal["replay", "dual"],
        typer.Option(help="replay: exactly the inverted background. dual: denoise it again."),
    ] = "replay",
    blend: Annotated[
        Literal["residual", "decoded"],
        typer.Option(help="residual: add the change to the original. decoded: the model's pixels."),
    ] = "residual",
    refine: Annotated[
        Literal["change", "attention", "both", "none"],
        typer.Option(
            help="Where the label lies: where the image changed, where the model paid "
            "attention to the defect, both, or none: the mask as it is."
        ),
    ] = "change",
    min_change: Annotated[
        float,
        typer.Option(
            help="Smallest change that counts as defect, share of the full range.", min=0, max=1
        ),
    ] = 0.03,
    feather: Annotated[float, typer.Option(help="Width of the soft border in px.", min=0)] = 4.0,
    formats: Annotated[
        str,
        typer.Option(
            "--format", help="What to write, with commas: mvtec (always), coco, yolo; see the docs."
        ),
    ] = "mvtec",
    min_coverage: Annotated[
        float,
        typer.Option(help="Share of the mask that must change; less is no defect.", min=0, max=1),
    ] = 0.05,
    max_leak: Annotated[
        float,
        typer.Option(
            help="Change that may be cut off at the border, as a share of the defect's own; "
            "more is a seam.",
            min=0,
        ),
    ] = 1.0,
    batch: Annotated[int, typer.Option(help="Rows in the engine at once.", min=1)] = 4,
    threads: Annotated[int | None, typer.Option(help="CPU threads; all by default.", min=1)] = None,
    provider: Annotated[
        cli_engines.ProviderName | None,
        typer.Option(
            help="What an ONNX engine runs on; by default the CPU. auto: the fastest here, as "
            "doctor finds it. One that does not take the whole engine is an error."
        ),
    ] = None,
    trust: cli_engines.Trust = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait if another process is writing to OUT.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The summary as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Put defects into images of good parts and write a labelled dataset.

    The mask of good/a/7.jpg is masks/a/7_mask.png or masks/a/7.png. OUT gets the MVTec AD layout
    and manifest.jsonl. Outside a soft border around the mask every pixel is the original's.
    Whatever stops it, the same command goes on and ends with the same files; Ctrl-C finishes the
    samples at hand. Exit codes: 0 all made, 7 some left out, 8 nothing made.

    Examples:

      defectrt synthesize --images good --defect scratch --out data

      defectrt synthesize --images good --masks masks --engine engines/hole --out data

      defectrt synthesize --images good --masks masks --engine engines/hole --out more --count 4

      defectrt synthesize --images good --mask-bank real/masks --within foreground --out data

      defectrt synthesize --images good --golden one.png --legal region.png --out data

      defectrt synthesize --images good --defect crack --out data --format coco,yolo
    """
    from ..config.masks import Masks
    from ..output.formats import parse_formats
    from ..synthesis.job import Job
    from ..synthesis.job import synthesize as run
    from ..synthesis.refinement import Refinement

    job = Job(
        defect=defect,
        count=count,
        candidates=candidates,
        seed=seed,
        steps=steps,
        background=background,
        blend=blend,
        refinement=Refinement(method=refine, min_change=min_change),
        min_coverage=min_coverage,
        max_leak=max_leak,
        feather=feather,
        batch=batch,
    )
    where = Masks(
        folder=masks,
        bank=mask_bank,
        shape=shape,
        instances=instances,
        scale=mask_scale,
        within=within,
        golden=golden,
        legal=legal,
        forbidden=forbidden,
        margin=margin,
    )
    summary = run(
        images,
        engine,
        where,
        out,
        job,
        category=category,
        formats=parse_formats(formats),
        threads=threads,
        provider=provider,
        trust=trust,
        wait=wait,
        quiet=quiet,
    )
    if as_json:
        typer.echo(json.dumps(asdict(summary)))
    else:
        typer.echo(
            f"{out}: {summary.requested} requested, {summary.placed} placed, "
            f"{summary.generated} generated ({summary.made} now), {summary.kept} kept; "
            f"{summary.rejected} of {summary.tries} candidates rejected, "
            f"{len(summary.failed)} images failed; on {summary.provider}"
        )
    summary.check()
