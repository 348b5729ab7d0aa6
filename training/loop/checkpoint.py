"""Checkpoints of a training run: safetensors and JSON, written whole or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from defectrt.errors import InputError, OutputError, TrainingError
from defectrt.files import parse_json, read_file, set_aside, write_directory

__all__ = [
    "State",
    "averaged",
    "averaging",
    "latest",
    "load",
    "save",
    "trained",
]

_MAX_STATE = 1 << 20
#: What reading a checkpoint may end in, if it is none of ours.
_DAMAGE = (OSError, SafetensorError, KeyError, ValueError, TypeError, RuntimeError, InputError)


def trained(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that training changes, by name."""
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def averaging(module: nn.Module, decay: float) -> EMAModel | None:
    """The moving average of what is trained of ``module``, from its present weights on.

    ``decay`` in [0,1), which the first steps warm up to; 0 is no average, and nothing is kept.
    """
    return EMAModel(trained(module).values(), decay) if decay else None


@contextmanager
def averaged(module: nn.Module, ema: EMAModel | None) -> Iterator[None]:
    """Within the block the module has the averaged weights; afterwards its own, to the bit."""
    if ema is None:
        yield
        return
    parameters = trained(module).values()
    ema.store(parameters)
    ema.copy_to(parameters)
    try:
        yield
    finally:
        ema.restore(parameters)


@dataclass
class State:
    """All that changes while training; everything else is a function of the configuration.

    ``ema`` is the average of the weights and ``scaler`` that of float16's gradients, if there are
    such.
    """

    module: nn.Module
    optimizer: torch.optim.Optimizer
    ema: EMAModel | None
    step: int = 0
    scaler: torch.amp.GradScaler | None = None


def save(state: State, directory: Path, keep: int = 1) -> Path:
    """Write ``directory/<step>``, then drop all but the newest ``keep`` checkpoints."""
    final = directory / f"{state.step:07d}"
    if final in _checkpoints(directory):
        return final

    def write(partial: Path) -> None:
        save_file(_contiguous(trained(state.module)), partial / "weights.safetensors")
        save_file(_contiguous(_average(state)), partial / "ema.safetensors")
        save_file(_optimizer_tensors(state), partial / "optimizer.safetensors")
        scaler = state.scaler.state_dict() if state.scaler else None
        ema_step = state.ema.optimization_step if state.ema else 0
        text = json.dumps({"step": state.step, "ema_step": ema_step, "scaler": scaler})
        (partial / "state.json").write_text(text + "\n")

    before = "the one before it is whole" if latest(directory) else "there is none before it"
    advice = f"{before}; make room and continue with --resume"
    try:
        write_directory(final, write, advice=advice)
    except SafetensorError as error:  # what it makes of a full disk
        raise OutputError(f"{final}: cannot be written ({error}); {advice}") from error
    for old in _checkpoints(directory)[:-keep]:
        shutil.rmtree(set_aside(old), ignore_errors=True)
    return final


def latest(directory: Path) -> Path | None:
    """The newest whole checkpoint under ``directory``, if there is one."""
    return next(reversed(_checkpoints(directory)), None)


def load(state: State, checkpoint: Path) -> None:
    """Put ``checkpoint`` into ``state``. Raises `TrainingError` if it is damaged or foreign."""
    try:
        weights = load_file(checkpoint / "weights.safetensors")
        ema = load_file(checkpoint / "ema.safetensors")
        optimizer = load_file(checkpoint / "optimizer.safetensors")
        record = parse_json(read_file(checkpoint / "state.json", _MAX_STATE))
        step = int(record["step"])
        with torch.no_grad():
            for name, parameter in trained(state.module).items():
                parameter.copy_(weights[name])
                state.optimizer.state[parameter] = _of_parameter(optimizer, name, parameter)
            for name, average in _average(state).items():
                average.copy_(ema[name])
        if state.ema:
            state.ema.optimization_step = int(record["ema_step"])
        if state.scaler:
            state.scaler.load_state_dict(record["scaler"])
    except _DAMAGE as error:
        raise TrainingError(f"{checkpoint}: not a checkpoint of this run: {error}") from error
    state.step = step


def _checkpoints(directory: Path) -> list[Path]:
    return sorted(p for p in directory.glob("[0-9]*") if (p / "state.json").is_file())


def _contiguous(tensors: dict[str, Any]) -> dict[str, Tensor]:
    return {k: v.detach().contiguous() for k, v in tensors.items()}


def _average(state: State) -> dict[str, Tensor]:
    """The averaged weights by name; none without an average."""
    if state.ema is None:
        return {}
    return dict(zip(trained(state.module), state.ema.shadow_params, strict=True))


def _optimizer_tensors(state: State) -> dict[str, Tensor]:
    named = {id(p): name for name, p in trained(state.module).items()}
    return _contiguous(
        {
            f"{key}:{named[id(parameter)]}": value
            for parameter, values in state.optimizer.state.items()
            for key, value in values.items()
        }
    )


def _of_parameter(
    tensors: dict[str, Tensor], name: str, parameter: nn.Parameter
) -> dict[str, Tensor]:
    """The optimiser's tensors of one parameter, beside it; its count of steps stays on the CPU."""
    return {
        key: value if key == "step" else value.to(parameter.device)
        for full, value in tensors.items()
        for key, _, owner in [full.partition(":")]
        if owner == name
    }
