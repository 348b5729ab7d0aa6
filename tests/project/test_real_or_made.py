"""The classifier that tells made defects from real ones: it finds what differs, and only that."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from support.outputs import save

pytestmark = pytest.mark.slow  # it imports training


@pytest.fixture
def module(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    monkeypatch.delitem(sys.modules, "real_or_made", raising=False)
    return import_module("real_or_made")


def dataset(folder, seed, depth, blurred=False, count=24):
    rng = np.random.default_rng(seed)
    for i in range(count):
        image = rng.normal(150, 6, (90, 90))
        y, x = rng.integers(25, 60, 2)
        mask = np.zeros((90, 90), np.uint8)
        mask[y : y + 8, x : x + 8] = 255
        image[y : y + 8, x : x + 8] -= depth
        if blurred:
            image = (image + np.roll(image, 1, 0) + np.roll(image, 1, 1)) / 3
        save(folder / "pit" / f"{i}.png", image.clip(0, 255).astype(np.uint8))
        save(folder / "pit" / f"{i}_mask.png", mask)
    return folder


def test_it_finds_what_differs_and_only_that(module, tmp_path, monkeypatch, capsys):
    real = dataset(tmp_path / "real", 0, depth=60)
    sets = {
        "alike": dataset(tmp_path / "alike", 1, depth=60),
        "faint": dataset(tmp_path / "faint", 2, depth=25),
        "blurred": dataset(tmp_path / "blurred", 3, depth=60, blurred=True),
    }
    monkeypatch.setattr("defectrt.training.evaluation.two_sample._DRAWS", 5)
    monkeypatch.setattr(sys, "argv", ["real_or_made.py", str(real), *map(str, sets.values())])
    module.main()
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    right = {line["made"].rpartition("/")[2]: line["right"][1] for line in lines}
    assert right["real"] < 0.75
    assert right["alike"] < 0.75
    assert right["alike, beside"] < 0.75
    assert right["faint"] > 0.9
    assert right["faint, beside"] < 0.75
    assert right["blurred"] > 0.9
    assert right["blurred, beside"] > 0.9
