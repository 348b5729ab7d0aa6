"""The training loop: one for the VAE, the base (Eq. 2) and the fine-tune (Eq. 5)."""

from __future__ import annotations

import os
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import GradientAccumulationPlugin, patch_environment

from defectrt.cores import cores
from defectrt.errors import Cancelled, InputError, TrainingError
from defectrt.files import write_directory
from defectrt.progress import Progress
from defectrt.stopping import asked_to_stop

from ..config import TrainConfig
from ..data.ahead import Ahead
from ..data.crops import Augmentation, Batch, Crops
from ..data.samples import Sample
from ..evaluation.previews import Previews
from ..models.stable_diffusion import StableDiffusion
from ..record import RESUME, read_record
from . import checkpoint
from .checkpoint import State, averaged, averaging, trained
from .holdout import HoldOut
from .monitor import Log
from .precision import fastest
from .run_directory import locked, open_run, record
from .stages import Stage, make_stage

__all__ = ["OBJECTIVES", "TrainConfig", "train"]

#: Parameters up to which speed counts for more than memory.
_SMALL = 100_000_000
#: Threads that make batches for a card; on a CPU one, beside those that train.
_MOST_WORKERS = 8
#: Steps after which losses are read: a card waits for whoever reads.
_READ_EVERY = defaultdict(lambda: 10, cpu=1)
OBJECTIVES = ("autoencoder", "decoder", "denoise", "disentangle")


def train(
    model: StableDiffusion,
    samples: Sequence[Sample],
    config: TrainConfig,
    run: Path,
    *,
    base_model: str = "",
    resume: bool = False,
    checkpoint_every: int = 250,
    keep_checkpoints: int = 2,
    preview_every: int = 0,
    preview_steps: int = 20,
    held_out: Sequence[Sample] = (),
    measure_every: int = 50,
    tensorboard: bool = False,
    mlflow: bool = False,
    device: str = "cpu",
    quiet: bool = False,
    attach: Mapping[str, str] | None = None,
) -> Path:
    """Train ``model`` and write ``run/model``, a plain diffusers directory with averaged weights.

    ``run`` also gets ``run.json`` (configuration, prompts, dataset hashes), ``log.jsonl``,
    ``checkpoints/``, the texts of ``attach`` under their names and, every ``preview_every`` steps
    and at the end, ``previews/``. With ``resume`` a stopped run goes on from its newest checkpoint
    and ends with the weights it would have had; ``steps`` and ``cooldown`` may differ, to go on
    for longer or to end where the checkpoint is. With examples ``held_out`` in one process, the
    loss on them is measured every ``measure_every`` steps, the model has the weights that did best,
    and training ends when they have been getting worse (see `HoldOut`). Ctrl-C, SIGTERM
    and SIGHUP finish the step, save, and raise `Cancelled`. Started several times by
    ``accelerate launch``, every process calls this; the first one writes.
    Raises `TrainingError` if the loss is no longer finite, `OutputError` if the disk is full or
    another process trains in ``run``.
    """
    config = _with_precision(_fit(model, config), run, device)
    accelerator = _accelerator(config, device)
    first = accelerator.is_main_process
    with ExitStack() as stack:
        if first:
            stack.enter_context(locked(run))
            base = model.vae if config.of_vae else model.unet
            made = record(config, samples, base, base_model, accelerator.num_processes)
            open_run(run, made, resume, attach or {})
        accelerator.wait_for_everyone()
        loop = _prepare(model, samples, config, accelerator, run / "checkpoints")
        state = loop.state
        newest = checkpoint.latest(loop.checkpoints)
        if resume and newest:
            checkpoint.load(state, newest)
        stack.enter_context(loop.batches)
        curve = HoldOut(loop.stage, held_out, loop.config, run, state.step) if held_out else None
        watch = stack.enter_context(
            _watch(
                loop,
                run,
                _previews(model, samples, loop, run, preview_steps) if preview_every else None,
                every=preview_every,
                boards={"tensorboard": tensorboard, "mlflow": mlflow},
                quiet=quiet,
            )
        )
        stop = stack.enter_context(asked_to_stop(theirs=True))
        over = False
        while state.step < config.steps and not over and not _agreed(accelerator, stop):
            loop.unread.append(_step(loop))
            last = state.step == config.steps
            saved = last or state.step % checkpoint_every == 0
            shown = bool(preview_every) and state.step % preview_every == 0
            if saved or shown or len(loop.unread) >= _READ_EVERY[accelerator.device.type]:
                _read(loop, watch)
            if curve and (last or state.step % measure_every == 0):
                curve.measure(state)
                over = curve.is_over
            if first and saved:
                checkpoint.save(state, loop.checkpoints, keep_checkpoints)
        _read(loop, watch)
        if state.step < config.steps and not over:
            if first:
                checkpoint.save(state, loop.checkpoints, keep_checkpoints)
            raise Cancelled(f"stopped at step {state.step} of {config.steps}; go on with --resume")
        if curve:
            curve.restore(state)
        elif state.ema:
            state.ema.copy_to(trained(state.module).values())
        if first and config.lora:
            write_directory(run / "lora", state.module.save_lora_adapter, advice=RESUME)
        loop.stage.finish(loop.crops)
        learned = "vae" if config.of_vae else "unet"
        model.untrained = tuple(part for part in model.untrained if part != learned)
        if first:
            write_directory(run / "model", model.save, advice=RESUME)
        accelerator.wait_for_everyone()
    return run / "model"


@dataclass
class _Loop:
    """A run in progress: what every process holds."""

    accelerator: Accelerator
    stage: Stage
    forward: torch.nn.Module
    optimizer: Any
    state: State
    crops: Crops
    batches: Ahead
    config: TrainConfig
    checkpoints: Path
    unread: list[_Seen] = field(default_factory=list)


@dataclass(frozen=True)
class _Seen:
    """What a step saw, still on its device: the mean of every term, and the gradient's norm."""

    step: int
    names: tuple[str, ...]
    values: torch.Tensor


def _prepare(
    model: StableDiffusion,
    samples: Sequence[Sample],
    config: TrainConfig,
    accelerator: Accelerator,
    checkpoints: Path,
) -> _Loop:
    assert config.window is not None
    crops = Crops(
        samples,
        config.window,
        good=config.good,
        seed=config.seed,
        magnify=config.magnify,
        augmentation=Augmentation(
            config.flip, config.turn, config.contrast, config.brightness, config.loose
        ),
    )
    stage = make_stage(model, samples, config, accelerator.device)
    own = _optimizer(stage.module, config)
    forward, optimizer = accelerator.prepare(stage, own)
    ema = averaging(stage.module, config.ema_decay)
    state = State(stage.module, own, ema, scaler=accelerator.scaler)
    ranks = accelerator.num_processes
    batches = Ahead(
        lambda number: crops.batch(number, config.batch_size),
        stride=ranks,
        end=config.steps * config.accumulate * ranks,
        workers=1 if accelerator.device.type == "cpu" else min(_MOST_WORKERS, cores()),
    )
    return _Loop(accelerator, stage, forward, optimizer, state, crops, batches, config, checkpoints)


def _optimizer(module: torch.nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    parameters = list(trained(module).values())
    if config.optimizer == "adafactor":
        # one parameter at a time: all at once would hold a second copy of every gradient
        return torch.optim.Adafactor(
            parameters, config.learning_rate, weight_decay=config.weight_decay, foreach=False
        )
    # all parameters at once is faster, and holds a second copy of their second moments
    small = sum(p.numel() for p in parameters) < _SMALL
    return torch.optim.AdamW(
        parameters, config.learning_rate, weight_decay=config.weight_decay, foreach=small
    )


def _accelerator(config: TrainConfig, device: str) -> Accelerator:
    kind = torch.device(device).type
    if kind == "cuda" and not torch.cuda.is_available():
        raise InputError(f"--device {device}: torch sees no GPU here; take --device cpu")
    if config.precision == "float16" and kind == "cpu":
        raise InputError("float16 trains on a GPU only; take --precision bfloat16 or float32")
    if kind == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # nothing reads such memory
    # accelerate keeps its state for the life of the process; every run brings its own settings
    AcceleratorState._reset_state(reset_partial_state=True)
    alone = int(os.environ.get("WORLD_SIZE", "1")) == 1
    with patch_environment(**({"accelerate_torch_device": device} if alone else {})):
        return Accelerator(
            cpu=kind == "cpu",
            mixed_precision={"float32": "no", "bfloat16": "bf16", "float16": "fp16"}[
                config.precision
            ],
            gradient_accumulation_plugin=GradientAccumulationPlugin(
                num_steps=config.accumulate, sync_with_dataloader=False
            ),
        )


def _step(loop: _Loop) -> _Seen:
    """One optimisation step; all randomness is a function of (seed, step, process, batch).

    Nothing is read of what it computes, so a card need not be waited for.
    """
    state, config, accelerator = loop.state, loop.config, loop.accelerator
    ranks = accelerator.num_processes
    start = state.step * config.accumulate * ranks + accelerator.process_index
    numbers = range(start, start + config.accumulate * ranks, ranks)
    batches = [loop.batches[number] for number in numbers]
    shares = _shares(batches, accelerator) if loop.stage.per_defect else [1.0] * len(batches)
    step, seen, norm = state.step, [], None
    for number, batch, share in zip(numbers, batches, shares, strict=True):
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + number)
        with accelerator.accumulate(loop.forward):
            terms = loop.forward(batch, generator)
            if loop.stage.per_defect:
                terms[loop.stage.per_defect] = terms[loop.stage.per_defect] * share
            values = torch.stack(list(terms.values()))
            accelerator.backward(values.sum())
            seen.append(values.detach())
            if accelerator.sync_gradients:
                norm = _update(loop)
    means = accelerator.reduce(torch.stack(seen).mean(dim=0), "mean")
    # float16's scaler passes over a step whose gradient is not finite itself
    norm = (
        torch.zeros_like(means[0]) if norm is None or state.scaler is not None else norm.to(means)
    )
    return _Seen(step, tuple(terms), torch.cat([means, norm.view(1)]))


def _read(loop: _Loop, watch: Callable[[int, dict[str, float]], None]) -> None:
    """Hand on what the last steps saw; raises `TrainingError` for what is not finite.

    The weights may be spoilt then, but nothing was made of them: whoever saves them reads first.
    """
    for seen in loop.unread:
        *terms, norm = seen.values.tolist()
        _check_finite(sum(terms), "loss", seen.step, loop)
        _check_finite(norm, "gradient", seen.step, loop)
        watch(seen.step + 1, dict(zip(seen.names, terms, strict=True)))
    loop.unread.clear()


def _update(loop: _Loop) -> torch.Tensor:
    """Move the weights along their gradients, whose norm before clipping is returned."""
    state, config = loop.state, loop.config
    norm = loop.accelerator.clip_grad_norm_(trained(state.module).values(), 1.0)
    for group in state.optimizer.param_groups:
        group["lr"] = config.learning_rate * _share_of_rate(config, state.step)
    loop.optimizer.step()
    loop.optimizer.zero_grad()
    state.step += 1
    if state.ema:
        state.ema.step(trained(state.module).values())
    assert isinstance(norm, torch.Tensor)
    return norm.detach()


def _share_of_rate(config: TrainConfig, step: int) -> float:
    """Up over the first steps, then 1, then down: the trapezoid of Zhai et al. 2022, sec. 3.5."""
    up, down = (step + 1) / (config.warmup + 1), (config.steps - step) / (config.cooldown + 1)
    return min(1.0, up, down)


def _check_finite(value: float, name: str, step: int, loop: _Loop) -> None:
    if isfinite(value):
        return
    newest = checkpoint.latest(loop.checkpoints)
    usable = (
        f"the last checkpoint is whole: --resume --steps {int(newest.name)} makes a model of it"
        if newest
        else "there is no checkpoint yet"
    )
    raise TrainingError(
        f"the {name} is {value} at step {step}; {usable}. "
        "To train further, start again with a lower --learning-rate or --precision float32"
    )


def _shares(batches: Sequence[Batch], accelerator: Accelerator) -> list[float]:
    """Weights that make a mean over defects in each batch one over all defects of the step.

    Batches have different numbers of defects, and a mean of means would count the lonely ones
    for more. The backward pass divides by the number of batches, and that is undone here.
    """
    counts = torch.tensor([float(b.mask.any(axis=(1, 2, 3)).sum()) for b in batches])
    mean = counts.mean()
    if accelerator.num_processes > 1:
        mean = accelerator.reduce(mean.to(accelerator.device), "mean").cpu()
    return (counts / mean).tolist() if mean > 0 else [1.0] * len(batches)


def _agreed(accelerator: Accelerator, stop: threading.Event) -> bool:
    """Whether any process was told to stop; all hear of it in the same step."""
    if accelerator.num_processes == 1:
        return stop.is_set()
    told = torch.tensor(float(stop.is_set()), device=accelerator.device)
    return bool(accelerator.reduce(told, "sum").item())


def _previews(
    model: StableDiffusion, samples: Sequence[Sample], loop: _Loop, run: Path, steps: int
) -> Previews | None:
    if not loop.accelerator.is_main_process:
        return None
    device = str(loop.accelerator.device)
    return Previews(model, samples, loop.config, run, steps=steps, device=device)


@contextmanager
def _watch(
    loop: _Loop,
    run: Path,
    previews: Previews | None,
    *,
    every: int,
    boards: Mapping[str, bool],
    quiet: bool,
) -> Iterator[Callable[[int, dict[str, float]], None]]:
    """What takes each step's losses: the log, the progress line, the previews."""
    if not loop.accelerator.is_main_process:
        yield lambda step, losses: None
        return
    state, config = loop.state, loop.config
    crops = config.batch_size * config.accumulate * loop.accelerator.num_processes
    latest: dict[str, float | str] = {}
    with (
        Log(run, state.step, config.steps, **boards) as log,
        Progress(config.steps, config.objective, quiet=quiet) as progress,
    ):

        def watch(step: int, losses: dict[str, float]) -> None:
            figures = log.add(step, losses, crops)
            if previews and (step % every == 0 or step == config.steps):
                with log.paused(), averaged(state.module, state.ema):
                    measured, image = previews.draw(step)
                log.write(step, measured, image)
                latest.update({k: v for k, v in measured.items() if k != "preview"})
            if sys.stderr.isatty():  # the bar has a clock of its own
                figures.pop("left")
            progress.update(step, **figures, **latest)

        yield watch


def _fit(model: StableDiffusion, config: TrainConfig) -> TrainConfig:
    """The configuration with its window, which has to divide through the VAE and the U-Net."""
    window = config.window or model.window
    factor = model.downscale * 2 ** (len(model.unet.config.block_out_channels) - 1)
    if window % factor:
        raise InputError(
            f"a window of {window} px does not divide by {factor}, which this model "
            f"needs; take {max(1, round(window / factor)) * factor}"
        )
    if config.magnify != "fit" and config.magnify > model.downscale:
        raise InputError(
            f"magnify: {config.magnify} px are more than the {model.downscale} px of a cell of "
            "this model's latents; nothing finer can be painted"
        )
    if config.prediction not in (None, model.prediction_type):
        raise InputError(
            f"the model predicts {model.prediction_type}, the configuration wants "
            f"{config.prediction}: is it the model that this preset is for?"
        )
    return config.model_copy(update={"window": window})


def _with_precision(config: TrainConfig, run: Path, device: str) -> TrainConfig:
    """The configuration with a precision; a run that was started goes on with its own."""
    if config.precision != "auto":
        return config
    started = read_record(run).config if (run / "run.json").is_file() else {}
    precision = started.get("precision") or fastest(torch.device(device))
    return config.model_copy(update={"precision": precision})
