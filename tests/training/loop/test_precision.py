"""The precision that trains fastest is taken, and kept by the run."""

from __future__ import annotations

import json

import pytest
import torch

from defectrt.training.config import TrainConfig
from defectrt.training.loop import precision, train
from defectrt.training.loop.precision import fastest

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("slow", "quick", "taken"), [(2.0, 1.0, "bfloat16"), (1.0, 14.0, "float32")]
)
def test_the_faster_one_on_a_cpu(monkeypatch, slow, quick, taken):
    seconds = {torch.float32: slow, torch.bfloat16: quick}
    monkeypatch.setattr(precision, "_seconds", seconds.get)
    assert fastest(torch.device("cpu")) == taken


def test_the_trial_takes_time_and_leaves_nothing():
    assert precision._seconds(torch.float32) > 0


@pytest.mark.parametrize("has", [True, False])
def test_a_card_without_bfloat16(monkeypatch, has):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: has)
    assert fastest(torch.device("cuda")) == ("bfloat16" if has else "float32")


def test_auto_is_settled_once(monkeypatch, tmp_path):
    monkeypatch.setattr(train, "fastest", lambda device: "bfloat16")
    auto = TrainConfig(precision="auto")
    assert train._with_precision(auto, tmp_path, "cpu").precision == "bfloat16"
    record = {"image_size": 32, "prompts": [], "config": {"precision": "float32"}}
    (tmp_path / "run.json").write_text(json.dumps(record))
    assert train._with_precision(auto, tmp_path, "cpu").precision == "float32"
    given = TrainConfig(precision="bfloat16")
    assert train._with_precision(given, tmp_path, "cpu") is given
