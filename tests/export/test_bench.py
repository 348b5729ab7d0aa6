"""The engine against the plain loop: the same image first, then ratios, and no promises."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from defectrt.errors import EngineError, UsageError
from defectrt.export import bench as module
from defectrt.export.bench import Report, Way, bench

#: Importing diffusers and opening models takes seconds.
pytestmark = pytest.mark.slow


@pytest.fixture
def quick(filled_graphs, monkeypatch):
    """The engine of random weights is built without an export."""
    make = partial(module.new_model, prediction_type="v_prediction")
    monkeypatch.setattr(module, "new_model", make)


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_both_give_the_same_image_and_the_counts_are_those_of_the_method():
    report = bench(None, size="tiny", images=3, steps=2, rounds=1, batch_size=2, quiet=True)
    assert report.difference <= 1
    rows = {name: way.rows for name, way in report.ways.items()}
    assert rows == {"plain loop": 3 * 6, "dual": 3 * 6, "replay": 3 * 4, "default": 3 * 8}
    for name in ("dual", "replay", "default"):
        assert {"encode", "rows", "decode"} <= report.ways[name].stages.keys()
        assert sum(report.shares(name).values()) >= 0.99
    assert "× plain" in report.table()


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_a_plain_loop_that_makes_another_image_is_not_timed(monkeypatch):
    class Wrong(module.PlainLoop):
        def __call__(self, image, mask, seed):
            made, rows = super().__call__(image, mask, seed)
            return np.where(mask[..., None], 255 - made, made), rows

    monkeypatch.setattr(module, "PlainLoop", Wrong)
    with pytest.raises(EngineError, match="grey levels"):
        bench(None, size="tiny", images=1, steps=1, rounds=1, quiet=True)


def test_ratios_are_taken_round_by_round():
    """A machine that slows down in the middle slows both sides of a ratio."""
    ways = {
        "plain loop": Way([2.0, 20.0, 2.0], rows=6),
        "dual": Way([1.0, 10.0, 1.0], rows=6, stages={"step": 0.5}),
        "replay": Way([0.5, 5.0, 0.5], rows=4, stages={"step": 0.25}),
    }
    report = Report(4, 1, 2, 1, "cpu", 32, 1000, 0, ways)
    assert report.speedup("dual") == 2
    assert report.speedup("replay") == 4
    assert report.shares("dual") == {"step": 0.5, "idle": 0.5}


def test_an_unknown_size_is_refused():
    with pytest.raises(UsageError, match="tiny"):
        bench(None, size="huge", quiet=True)
