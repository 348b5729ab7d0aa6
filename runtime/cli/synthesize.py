"""``defectrt synthesize``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from ..config.command_line import given, with_file, with_options
from ..config.job import AREAS, JobConfig
from ..errors import UsageError

__all__ = ["synthesize"]


@with_options(*AREAS)
def synthesize(
    config: Annotated[
        Path | None, typer.Option(help="YAML file; its keys are the options below, with _ for -.")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait if another process is writing to OUT.")
    ] = False,
    redo: Annotated[
        bool, typer.Option("--redo", help="Make samples again whose images or masks were changed.")
    ] = False,
    ray: Annotated[
        str | None,
        typer.Option(
            help="Make it on a cluster of Ray at this address; local starts one here. All its "
            "machines see the images, the engine and OUT under the same paths.",
            metavar="ADDRESS|local",
        ),
    ] = None,
    actors: Annotated[
        int | None,
        typer.Option(
            help="With --ray: processes that work at once; by default as it has cores.", min=1
        ),
    ] = None,
    gpu_share: Annotated[
        float, typer.Option(help="With --ray: share of a GPU for each of them.", min=0)
    ] = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="The summary as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
    **options: Any,
) -> None:
    """Put defects into images of good workpieces and write a labelled dataset.

    All it needs are the images: the engine's types of defect take turns, masks are drawn to suit
    them, and OUT is a new folder beside the images. The mask of good/a/7.jpg is masks/a/7_mask.png
    or masks/a/7.png. OUT gets the MVTec AD layout and manifest.jsonl; a second run with other
    types adds these to it. Outside a soft border around the mask every pixel is the original's.
    Whatever stops it, the same command goes on and ends with the same files; Ctrl-C finishes the
    samples at hand. Exit codes: 0 all made, 7 some left out, 8 nothing made.

    Examples:

      defectrt synthesize --images good

      defectrt synthesize --images good --defect crack=3,hole=1 --out data

      defectrt synthesize --images one.jpg --defect scratch --count 8

      defectrt synthesize --config scratch.yaml --count 4

      defectrt synthesize --images good --masks masks --engine engines/hole --out data

      defectrt synthesize --images good --mask-bank real/masks --within foreground --out data

      defectrt synthesize --images good --golden one.png --legal region.png --out data

      defectrt synthesize --images good --defect crack --out data --format coco,yolo

      defectrt synthesize --images good --shard 2/8 --out data-2

      defectrt synthesize --images good --out data --ray local --actors 4
    """
    job = JobConfig(**with_file(config, given(options, *AREAS)))

    from ..synthesis.stores import address_of, synthesize_in_store

    stored = address_of(job.images) or address_of(job.out)
    if stored and (ray or wait or redo):
        raise UsageError(f"--ray, --wait and --redo are not for {stored}")
    if stored:
        summary = synthesize_in_store(job, quiet=quiet)
    elif ray:
        from ..synthesis.ray_cluster import synthesize_on_ray

        if wait or redo:
            raise UsageError("--wait and --redo are not for --ray")
        summary = synthesize_on_ray(job, ray, actors=actors, gpu_share=gpu_share, quiet=quiet)
    else:
        from ..synthesis.job import synthesize as run

        summary = run(config=job, wait=wait, redo=redo, quiet=quiet)
    if as_json:
        typer.echo(json.dumps(asdict(summary)))
    else:
        healthy = f", {summary.healthy} healthy" if job.healthy else ""
        typer.echo(
            f"{address_of(job.out) or job.dataset}: {summary.requested} requested, "
            f"{summary.placed} placed, "
            f"{summary.generated} generated ({summary.made} now), {summary.kept} kept{healthy}; "
            f"{summary.rejected} of {summary.tries} candidates rejected, "
            f"{len(summary.failed)} images failed; on {summary.provider}"
        )
        if len(summary.by_type) > 1:
            for name, counts in summary.by_type.items():
                typer.echo(f"  {name}: " + ", ".join(f"{n} {what}" for what, n in counts.items()))
    summary.check()
