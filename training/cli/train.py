"""``defectrt train``. Torch is imported only when the command runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_origin

import typer

from defectrt.errors import InputError
from defectrt.extras import requires

from ..config import PRESETS, keys, load_config

__all__ = ["train"]


def _without_their_bars() -> None:
    """The libraries' own progress bars would stand between ours, and speak when all is quiet."""
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()


def _options(function: Callable[..., None]) -> Callable[..., None]:
    """Give ``function`` an option for every key of a configuration, beside its own."""
    own = [
        p
        for p in inspect.signature(function, eval_str=True).parameters.values()
        if p.kind != p.VAR_KEYWORD
    ]
    added = [_option(key, field) for key, field in keys()]
    function.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]
    function.__annotations__ |= {p.name: p.annotation for p in added}
    return function


def _option(key: str, field: Any) -> inspect.Parameter:
    """The option of one key; without it the file's value counts, or the preset's, or this one."""
    kind, shown = field.annotation, field.default
    if get_origin(kind) in (dict, tuple):
        kind = list[str]
    flag = key.replace("_", "-")
    names = f"--{flag}/--no-{flag}" if kind is bool else f"--{flag}"
    option = typer.Option(
        names,
        help=field.description,
        show_default=False if field.is_required() or shown in _NOT_SHOWN else str(shown),
        metavar=_METAVARS.get(key),
    )
    return inspect.Parameter(
        key, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option]
    )


_METAVARS = {"defect": "KIND=DIR", "prompt": "KIND=TEXT", "good": "DIR"}


_PAIRS = ("defect", "prompt")


_NOT_SHOWN: tuple[Any, ...] = (None, False, "", (), {})


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """The options that were given, as a configuration has them."""
    given = {key: value for key, value in options.items() if value not in (None, [])}
    for key in given.keys() & set(_PAIRS):
        given[key] = dict(_pair(key, text) for text in given[key])
    return given


def _pair(key: str, text: str) -> tuple[str, str]:
    kind, _, value = text.partition("=")
    if not kind or not value:
        raise InputError(f"--{key} {text}: write {_METAVARS[key]}, as in --{key} hole=…")
    return kind, value


@_options
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
        import torch

        from defectrt.config import yaml as yamlfile  # noqa: F401

        from ..loop.runs import first_process, start
    _without_their_bars()
    given = _given(options)
    started = Path(given["out"], "config.yaml") if "out" in given else None
    if resume and config is None and started and started.is_file():
        config = started
    run, training = load_config(preset, config, given)
    if run.threads:
        torch.set_num_threads(run.threads)
    for model in start(run, training, resume=resume, quiet=quiet):
        if first_process():
            typer.echo(model)
