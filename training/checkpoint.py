"""Checkpoints of a training run: safetensors and JSON, written whole or not at all."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from defectrt.errors import OutputError, TrainingError

__all__ = ["Ema", "State", "latest", "load", "save"]


class Ema:
    """Exponential moving average of a module's weights, with the usual warm-up of the decay."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        """Start at the module's present weights; ``decay`` in [0,1)."""
        self.decay = decay
        self.weights = {k: v.detach().float().clone() for k, v in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Move towards the module's weights after optimisation step ``step`` (from 1)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        current = [p.detach().float() for _, p in module.named_parameters()]
        torch._foreach_lerp_(list(self.weights.values()), current, 1 - decay)

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        """Overwrite the module's weights with the average."""
        for name, parameter in module.named_parameters():
            parameter.copy_(self.weights[name])


@dataclass
class State:
    """All that changes while training; everything else is a function of the configuration."""

    module: nn.Module
    optimizer: torch.optim.Optimizer
    ema: Ema
    step: int = 0


def save(state: State, directory: Path) -> Path:
    """Write ``directory/<step>``, then drop the older checkpoints."""
    final = directory / f"{state.step:07d}"
    partial = directory / f".{final.name}.partial"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        save_file(
            _contiguous(dict(state.module.named_parameters())), partial / "weights.safetensors"
        )
        save_file(_contiguous(state.ema.weights), partial / "ema.safetensors")
        save_file(_optimizer_tensors(state), partial / "optimizer.safetensors")
        (partial / "state.json").write_text(json.dumps({"step": state.step}) + "\n")
        partial.rename(final)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise OutputError(
            f"{final}: the checkpoint cannot be written: {error}. The one before it is whole; "
            "make room and continue with --resume"
        ) from error
    for old in _checkpoints(directory)[:-1]:
        shutil.rmtree(old)
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
        step = int(json.loads((checkpoint / "state.json").read_text())["step"])
        with torch.no_grad():
            for name, parameter in state.module.named_parameters():
                parameter.copy_(weights[name])
                state.ema.weights[name].copy_(ema[name])
                state.optimizer.state[parameter] = _of_parameter(optimizer, name)
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise TrainingError(f"{checkpoint}: not a checkpoint of this run: {error}") from error
    state.step = step


def _checkpoints(directory: Path) -> list[Path]:
    return sorted(p for p in directory.glob("[0-9]*") if (p / "state.json").is_file())


def _contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.detach().contiguous() for k, v in tensors.items()}


def _optimizer_tensors(state: State) -> dict[str, Tensor]:
    named = {id(p): name for name, p in state.module.named_parameters()}
    return _contiguous(
        {
            f"{key}:{named[id(parameter)]}": value
            for parameter, values in state.optimizer.state.items()
            for key, value in values.items()
        }
    )


def _of_parameter(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {
        key: value
        for full, value in tensors.items()
        for key, _, owner in [full.partition(":")]
        if owner == name
    }
