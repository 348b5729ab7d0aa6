"""``defectrt new-model`` and ``defectrt train``. Torch is imported only when a command runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from defectrt.errors import InputError, OutputError
from defectrt.extras import requires

__all__ = ["new_model", "train"]


def new_model(
    out: Annotated[Path, typer.Option(help="Directory to write the model to.")],
    size: Annotated[
        str, typer.Option(help="tiny (32 px, for tests), small (64 px) or colour.")
    ] = "small",
    prediction_type: Annotated[
        str, typer.Option(help="epsilon, v_prediction or sample.")
    ] = "epsilon",
    seed: Annotated[int, typer.Option(help="Seed of the random weights.")] = 0,
) -> None:
    """Make a small Stable Diffusion model of random weights, offline.

    It has the format of the large ones, so everything else works on it unchanged.

    Examples:

      defectrt new-model --out models/blank

      defectrt new-model --size tiny --out models/tiny
    """
    with requires("train"):
        from .model import SIZES
        from .model import new_model as make
    if size not in SIZES:
        raise InputError(f"--size {size}: there are {', '.join(SIZES)}")
    if prediction_type not in ("epsilon", "v_prediction", "sample"):
        raise InputError(f"--prediction-type {prediction_type}: epsilon, v_prediction or sample")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out}: already there; choose another --out")
    model = make(SIZES[size], prediction_type=prediction_type, seed=seed)
    try:
        model.save(out)
    except OSError as error:
        raise OutputError(f"{out}: the model cannot be written: {error}") from error
    typer.echo(out)


def train(
    model: Annotated[
        str, typer.Option(help="Stable Diffusion directory in diffusers' format, or a hub id.")
    ],
    out: Annotated[Path, typer.Option(help="Directory of the run.")],
    defect: Annotated[
        list[str] | None,
        typer.Option(
            help="KIND=DIR: pictures of one kind of defect with their masks, name.jpg beside "
            "name.png or images/ beside masks/. Repeat for more kinds.",
            metavar="KIND=DIR",
        ),
    ] = None,
    good: Annotated[
        list[Path] | None, typer.Option(help="Folder of good pictures. Repeat for more.")
    ] = None,
    objective: Annotated[
        str,
        typer.Option(
            help="disentangle: the fine-tune (Eq. 5). denoise: a base (Eq. 2). "
            "autoencoder: the VAE of a model made with new-model."
        ),
    ] = "disentangle",
    steps: Annotated[int, typer.Option(help="Optimisation steps in all.")] = 500,
    batch: Annotated[int, typer.Option(help="Crops a step.")] = 4,
    learning_rate: Annotated[
        float, typer.Option(help="5e-6 suits a pretrained model; from nothing take 1e-4 to 1e-3.")
    ] = 5e-6,
    warmup: Annotated[int, typer.Option(help="Steps over which the rate rises.")] = 0,
    ema: Annotated[float, typer.Option(help="Decay of the averaged weights.")] = 0.999,
    good_share: Annotated[
        float, typer.Option(help="Share of crops from good pictures, 0 to 1.")
    ] = 0.5,
    matching: Annotated[
        str,
        typer.Option(help="area: a small defect weighs as much as a large one. sum: as printed."),
    ] = "area",
    mask_threshold: Annotated[
        int, typer.Option(help="Mask pixels of at least this value are defect.")
    ] = 1,
    background_prompt: Annotated[str, typer.Option(help="C_bg.")] = "good surface",
    masked_prompt: Annotated[str, typer.Option(help="C_m, for an empty mask area.")] = "",
    window: Annotated[
        int | None, typer.Option(help="Side of the crops in px; by default the model's own.")
    ] = None,
    precision: Annotated[str, typer.Option(help="float32 or bfloat16 (autocast).")] = "float32",
    checkpoint_every: Annotated[int, typer.Option(help="Steps between checkpoints.")] = 250,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, …")] = "cpu",
    threads: Annotated[int | None, typer.Option(help="CPU threads; all by default.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of crops and noise.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a stopped run.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Fine-tune a model on a handful of defects.

    The run holds the model, the checkpoints, the losses (log.jsonl) and what went in (run.json).

    Examples:

      defectrt train --model models/base --defect hole=data/hole --good data/good --out runs/hole

      defectrt train --model runs/hole/model --defect hole=data/hole --out runs/more --steps 1000

      defectrt train --model models/blank --objective autoencoder --good data/good
      --learning-rate 1e-3 --batch 16 --out runs/vae
    """
    with requires("train"):
        import torch

        from .data import read_good, read_pairs
        from .model import open_model
        from .train import TrainConfig
        from .train import train as run
    if matching not in ("area", "sum"):
        raise InputError(f"--matching {matching}: area or sum")
    if threads:
        torch.set_num_threads(threads)
    samples = []
    for folder in good or []:
        samples += read_good(folder)
    for pair in defect or []:
        kind, _, folder_name = pair.partition("=")
        if not kind or not folder_name:
            raise InputError(f"--defect {pair}: write KIND=DIR, as in hole=data/hole")
        samples += read_pairs(Path(folder_name), kind, mask_threshold=mask_threshold)
    if objective == "disentangle" and not defect:
        raise InputError("the fine-tune needs defects: --defect KIND=DIR")
    opened = open_model(model)
    config = TrainConfig(
        objective=objective,
        steps=steps,
        batch=batch,
        learning_rate=learning_rate,
        warmup=warmup,
        ema_decay=ema,
        good=good_share,
        matching_by_area=matching == "area",
        background_prompt=background_prompt,
        masked_prompt=masked_prompt,
        precision=precision,
        window=window or opened.window,
        seed=seed,
    )
    typer.echo(
        run(
            opened,
            samples,
            config,
            out,
            base_model=model,
            resume=resume,
            checkpoint_every=checkpoint_every,
            device=device,
            quiet=quiet,
        )
    )
