"""Examples held back from training: the learning curve on them, and the weights that did best."""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import inf
from pathlib import Path

import torch
from safetensors.torch import load_file
from safetensors.torch import save as serialize

from defectrt.files import write_whole

from ..config import TrainConfig
from ..data.crops import Augmentation, Crops
from ..data.samples import Sample
from ..record import RESUME
from .checkpoint import State, averaged, trained
from .stages import Stage

__all__ = ["CURVE", "HoldOut", "read_curve"]

CURVE, _BEST = "held_out.jsonl", "best.safetensors"
#: Batches that are measured, the same every time, noise and timesteps too.
_BATCHES = 6
#: Measurements without a better one after which training ends.
_PATIENCE = 3


class HoldOut:
    """Measures the loss on held-back examples, and keeps the averaged weights that did best.

    The loss is the objective's own term for the defect. ``held_out.jsonl`` in the run has a line a
    measurement.
    """

    def __init__(
        self, stage: Stage, samples: Sequence[Sample], config: TrainConfig, run: Path, step: int
    ) -> None:
        """Go on after ``step``; what a stopped run measured later is measured again."""
        assert config.window is not None
        self._stage, self._config, self._run = stage, config, run
        still = Augmentation("none", contrast=0, brightness=0)
        self._crops = Crops(
            samples,
            config.window,
            good=0,
            seed=0,
            magnify=config.magnify,
            augmentation=still,
        )
        self._curve = [(s, loss) for s, loss in read_curve(run) if s <= step]
        if not (run / _BEST).is_file():
            self._curve = []

    def measure(self, state: State) -> float:
        """The loss now, noted; the weights are kept if there was no better one."""
        assert self._stage.per_defect
        losses = []
        with averaged(state.module, state.ema), torch.no_grad():
            state.module.eval()
            for number in range(_BATCHES):
                generator = torch.Generator().manual_seed(number)
                batch = self._crops.batch(number, self._config.batch_size)
                losses.append(float(self._stage(batch, generator)[self._stage.per_defect]))
            state.module.train()
            loss = sum(losses) / len(losses)
            if loss <= min((past for _, past in self._curve), default=inf):
                self._keep(state)
        self._curve.append((state.step, loss))
        lines = (json.dumps({"step": s, "loss": x}) + "\n" for s, x in self._curve)
        write_whole(self._run / CURVE, "".join(lines).encode(), advice=RESUME)
        return loss

    @property
    def best(self) -> int:
        """The step of the best measurement."""
        return min(self._curve, key=lambda point: point[1])[0]

    @property
    def is_over(self) -> bool:
        """Whether it has been getting worse for so long that training may end."""
        after = [step for step, _ in self._curve if step > self.best]
        return len(after) >= _PATIENCE

    def restore(self, state: State) -> None:
        """Give the module the weights that did best."""
        kept = load_file(self._run / _BEST)
        with torch.no_grad():
            for name, weights in trained(state.module).items():
                weights.copy_(kept[name])

    def _keep(self, state: State) -> None:
        weights = {name: w.detach().cpu().contiguous() for name, w in trained(state.module).items()}
        write_whole(self._run / _BEST, serialize(weights), advice=RESUME)


def read_curve(run: Path) -> list[tuple[int, float]]:
    """Steps and losses of a run that held examples back; none if it did not."""
    path = run / CURVE
    if not path.is_file():
        return []
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [(int(line["step"]), float(line["loss"])) for line in lines]
