"""``defectrt train``. Torch is imported only when the command runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from defectrt.config.command_line import given, with_options
from defectrt.extras import requires

from ..config import PRESETS, RunConfig, TrainConfig, load_config

__all__ = ["train"]


@with_options(RunConfig, TrainConfig)
def train(
    config: Annotated[
        Path | None, typer.Option(help="YAML file; its keys are the options below, with _ for -.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help=f"Where to start from: {', '.join(PRESETS)}.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a stopped run.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
    **options: Any,
) -> None:
    """Fine-tune a model on a handful of defects.

    A value comes from the command line, else from the file, else from the preset, else it is the
    default shown. OUT gets model/ (a plain diffusers directory), checkpoints/, previews/ (the
    same images again and again while the model learns), log.jsonl (the losses), run.json (what
    went in) and config.yaml (everything below, for --config). A run that was stopped or killed
    goes on with --resume and ends with the same weights. On several GPUs: accelerate launch -m
    defectrt train …

    Examples:

      defectrt train --preset sd15 --model models/sd15 --defect hole=data/hole --good data/good
      --out runs/hole

      defectrt train --config hole.yaml --lora 16 --learning-rate 1e-4 --out runs/hole-lora

      defectrt train --out runs/hole --resume

      defectrt train --preset small-autoencoder --model models/blank --good data/good --out runs/vae
    """
    with requires("train"):
        from ..loop.runs import first_process, start
        from ..threads import set_threads
    chosen = given(options, RunConfig, TrainConfig)
    started = Path(chosen["out"], "config.yaml") if "out" in chosen else None
    if resume and config is None and started and started.is_file():
        config = started
    run, training = load_config(preset, config, chosen)
    set_threads(run.threads)
    for model in start(run, training, resume=resume, quiet=quiet):
        if first_process():
            typer.echo(model)
