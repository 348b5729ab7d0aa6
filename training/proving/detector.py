"""The detector of a proof: a small network, trained until held-out pictures say so.

A step takes half its crops from good pictures and half from defects; the weights that count are
averaged over the last steps, which takes most of the scatter out of so few examples. The step at
which the pixel AP of held-out real pictures was best is how long it is trained; it is then trained
so long again, from the same start, on the held-out ones too: no arm is to learn from fewer real
pictures than a made set has learned from.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from defectrt.errors import Cancelled
from defectrt.images.window import to_model

from ..data.crops import Augmentation, Batch, Crops
from ..data.samples import Sample
from .config import DetectorConfig, ProveConfig
from .figures import average_precision, histograms
from .frozen import BRIGHTNESS, CONTRAST, DECAY, frozen_steps
from .networks import new_network

__all__ = ["Curve", "Diet", "Trained", "fit", "logits", "speed", "train_on"]

#: Random starts come from the one global generator.
_START = threading.Lock()


@dataclass(frozen=True)
class Diet:
    """What a detector is trained on.

    real, good  pictures with and without a defect
    made        pictures with a made defect, and their ``share`` of the crops that show one
    """

    real: Sequence[Sample]
    good: Sequence[Sample]
    made: Sequence[Sample] = ()
    share: float = 0.0


Curve = tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Trained:
    """A detector, the steps it was trained, and the held-out pixel AP by step."""

    model: nn.Module
    steps: int
    curve: Curve


def fit(
    diet: Diet,
    held_out: Sequence[Sample],
    config: ProveConfig,
    seed: int,
    *,
    turn: bool = False,
    stopped: Callable[[], bool] = bool,
) -> Trained:
    """Train on ``diet`` until ``held_out`` real pictures stop improving, then on both as long.

    Where none of ``held_out`` shows a defect, and where all but a head is ``frozen``, it is trained
    for all the steps. Raises `Cancelled` as soon as ``stopped`` says so.
    """
    curve: list[tuple[int, float]] = []
    best = config.steps
    measured = not config.frozen and any(s.mask.any() for s in held_out)
    for model, step in _steps(diet, config, seed, turn, stopped) if measured else ():
        if step < config.steps and step % config.check_every:
            continue
        curve.append((step, _held_out_ap(model, held_out)))
        best = max(curve, key=lambda point: point[1])[0]
        if step - best >= config.patience * config.check_every:
            break
    from_all = Diet(
        [*diet.real, *(s for s in held_out if s.mask.any())],
        [*diet.good, *(s for s in held_out if not s.mask.any())],
        diet.made,
        diet.share,
    )
    again = config.model_copy(update={"steps": best})
    model = train_on(from_all, again, seed, turn=turn, stopped=stopped)
    return Trained(model, best, tuple(curve))


def train_on(
    diet: Diet,
    config: DetectorConfig,
    seed: int,
    *,
    turn: bool = False,
    stopped: Callable[[], bool] = bool,
) -> nn.Module:
    """Train for all the steps. Raises `Cancelled` as soon as ``stopped`` says so."""
    *_, (model, _) = _steps(diet, config, seed, turn, stopped)
    return model


def speed(samples: Sequence[Sample], config: DetectorConfig) -> tuple[float, float]:
    """Seconds of a step, and of a pixel that is tested."""
    samples = [next(s for s in samples if s.mask.any())] if config.frozen else samples
    steps = _steps(Diet(samples, samples), config.model_copy(update={"steps": 2}), 0, False, bool)
    model, _ = next(steps)
    began = time.perf_counter()
    model, _ = next(steps)
    learned = time.perf_counter()
    logits(model, samples[0])
    return learned - began, (time.perf_counter() - learned) / samples[0].mask.size


def logits(model: nn.Module, sample: Sample) -> NDArray[np.float32]:
    """[H,W]: how much each pixel of a picture looks like a defect."""
    h, w = sample.mask.shape
    x = to_model(sample.image, h)
    padded = np.pad(x, ((0, 0), (0, -h % 8), (0, -w % 8)), mode="reflect")
    with torch.inference_mode():
        found = model(_tensor(padded[None]))
    return found[0, 0, :h, :w].numpy()


def _steps(
    diet: Diet, config: DetectorConfig, seed: int, turn: bool, stopped: Callable[[], bool]
) -> Any:
    """After every step the averaged model, ready to be measured, and the step's number."""
    if config.frozen:
        yield from frozen_steps(diet, config, seed, turn, stopped)
        return
    with _START, torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        model = new_network(config)
    model.to(memory_format=torch.channels_last)
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(DECAY), use_buffers=True)
    optimizer = torch.optim.AdamW(
        model.learned(config.learning_rate), config.learning_rate, weight_decay=1e-4
    )
    batches = _Batches(diet, config, seed, turn)
    for step in range(1, config.steps + 1):
        if stopped():
            raise Cancelled("stopped; run the same command again to go on")
        pixels, mask = batches(step)
        loss = _loss(model.train()(pixels), mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        averaged.update_parameters(model)
        yield averaged.eval(), step


def _loss(found: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy and soft Dice."""
    p = found.sigmoid()
    dice = (2 * (p * mask).sum() + 1) / (p.sum() + mask.sum() + 1)
    return F.binary_cross_entropy_with_logits(found, mask) + 1 - dice


class _Batches:
    """Crops of each step: a function of (seed, step), with the same real ones in every arm."""

    def __init__(self, diet: Diet, config: DetectorConfig, seed: int, turn: bool) -> None:
        vary = Augmentation(turn=turn, contrast=CONTRAST, brightness=BRIGHTNESS)
        self._half, self._share = config.batch_size // 2, diet.share if diet.made else 0.0
        self._good, self._real = (
            Crops(samples, config.window, seed=seed, augmentation=vary)
            for samples in (diet.good, diet.real)
        )
        self._made = (
            Crops(diet.made, config.window, seed=seed, augmentation=vary) if diet.made else None
        )

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        wanted = self._half * self._share
        made = int(step * wanted + 1e-9) - int((step - 1) * wanted + 1e-9)
        batches: list[Batch] = [self._good.batch(step, self._half)]
        if made < self._half:
            batches.append(self._real.batch(step, self._half - made))
        if made and self._made:
            batches.append(self._made.batch(step, made))
        pixels = np.concatenate([b.pixels for b in batches])
        return _tensor(pixels), torch.from_numpy(np.concatenate([b.mask for b in batches]))


def _held_out_ap(model: nn.Module, held_out: Sequence[Sample]) -> float:
    found = [histograms(logits(model, s), s.mask) for s in held_out]
    positive, negative = (np.sum(side, axis=0)[None] for side in zip(*found, strict=True))
    return float(average_precision(positive, negative)[0])


def _tensor(pixels: NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(pixels).contiguous(memory_format=torch.channels_last)
