"""Examples held back: a curve, the best weights, an end when it gets worse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from defectrt.training.config import TrainConfig
from defectrt.training.data.samples import Sample
from defectrt.training.loop import holdout
from defectrt.training.loop.holdout import CURVE, HoldOut, read_curve
from defectrt.training.loop.train import train
from defectrt.training.models.stable_diffusion import SIZES, new_model, open_model

pytestmark = pytest.mark.slow

CONFIG = TrainConfig(steps=4, batch_size=2, learning_rate=1e-3, window=32, ema=0)


def example(seed):
    rng = np.random.default_rng(seed)
    image = rng.normal(150, 10, (40, 40, 3)).clip(0, 255).astype(np.uint8)
    mask = np.zeros((40, 40), bool)
    mask[10:18, 10:18] = True
    image[mask] //= 3
    path = Path(__file__)
    return Sample(path, "spot", image, mask)


def run(folder, **options):
    model = new_model(SIZES["tiny"], prediction_type="v_prediction")
    values = {"config": CONFIG, "held_out": [example(9)], "measure_every": 1} | options
    config = values.pop("config")
    return train(model, [example(0), example(1)], config, folder, quiet=True, **values)


def weights(path):
    return torch.cat([p.flatten() for p in open_model(path).unet.parameters()])


def test_the_curve_is_written_and_the_best_weights_are_taken(tmp_path, monkeypatch):
    seen, real = {}, HoldOut.measure

    def measure(self, state):
        planned = {1: 3.0, 2: 1.0, 3: 2.0, 4: 2.5}[state.step]
        monkeypatch.setattr(
            type(self._stage), "forward", lambda *_: {self._stage.per_defect: torch.tensor(planned)}
        )
        real(self, state)
        monkeypatch.undo()
        monkeypatch.setattr(HoldOut, "measure", measure)
        seen[state.step] = torch.cat([p.detach().flatten() for p in state.module.parameters()])

    monkeypatch.setattr(HoldOut, "measure", measure)
    made = run(tmp_path)
    assert read_curve(tmp_path) == [(1, 3.0), (2, 1.0), (3, 2.0), (4, 2.5)]
    final = weights(made)
    assert torch.equal(final, seen[2])
    assert not torch.equal(final, seen[4])


def test_it_ends_when_it_gets_worse(tmp_path, monkeypatch):
    monkeypatch.setattr(holdout, "_PATIENCE", 1)
    monkeypatch.setattr(HoldOut, "is_over", property(lambda self: len(self._curve) >= 2))
    run(tmp_path)
    assert [step for step, _ in read_curve(tmp_path)] == [1, 2]
    assert (tmp_path / "model" / "unet").is_dir()


def test_patience_counts_from_the_best():
    curve = HoldOut.__new__(HoldOut)
    for losses, over in (([3, 2, 1], False), ([1, 2, 3], False), ([1, 2, 3, 4], True)):
        curve._curve = list(enumerate(losses))
        assert curve.is_over is over


def test_a_stopped_run_ends_with_the_same_curve_and_weights(tmp_path):
    whole = run(tmp_path / "whole")
    run(tmp_path / "parts", config=CONFIG.model_copy(update={"steps": 2}))
    again = run(tmp_path / "parts", resume=True)
    assert read_curve(tmp_path / "parts") == read_curve(tmp_path / "whole")
    assert torch.equal(weights(whole), weights(again))
    assert (tmp_path / "parts" / CURVE).read_bytes() == (tmp_path / "whole" / CURVE).read_bytes()
