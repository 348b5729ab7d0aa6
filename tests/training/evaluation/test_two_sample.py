"""The classifier: chance stays near one half, and workpieces are not learned by heart."""

from __future__ import annotations

import numpy as np
import pytest

from defectrt.training.evaluation import two_sample
from defectrt.training.evaluation.two_sample import LEAST, told_apart


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(two_sample, "_DRAWS", 5)


def test_chance_and_a_shift():
    rng = np.random.default_rng(0)
    real, alike = rng.normal(size=(2, 60, 4))
    assert 0.3 < told_apart(real, alike)[1] < 0.7
    assert told_apart(real, alike + 3)[1] > 0.95


def test_a_workpiece_is_in_one_fold():
    """Each workpiece looks its own way: known ones would be told apart, new ones are not."""
    rng = np.random.default_rng(0)
    pieces = np.repeat(np.arange(10), 6)
    ways = rng.normal(size=(2, 10, 12))
    real, made = (way[pieces] + 0.01 * rng.normal(size=(60, 12)) for way in ways)
    assert told_apart(real, made)[1] > 0.9
    assert told_apart(real, made, (pieces.tolist(), pieces.tolist()))[1] < 0.75


def test_too_few_say_nothing():
    enough, few = np.zeros((LEAST, 2)), np.zeros((LEAST - 1, 2))
    assert told_apart(enough, few) is None
    assert told_apart(enough, enough, ([0] * LEAST, list(range(LEAST)))) is None
    assert told_apart(enough, enough) is not None
