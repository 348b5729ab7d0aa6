"""The detector: when it stops, what it is fed, that it is the same again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from defectrt.errors import Cancelled
from defectrt.training.data.samples import Sample
from defectrt.training.proving import detector
from defectrt.training.proving.config import ProveConfig
from defectrt.training.proving.detector import Diet, fit, logits

pytestmark = pytest.mark.slow

CONFIG = ProveConfig(
    synthetic=("made",), steps=8, check_every=2, patience=2, window=16, width=2, batch_size=8
)


def _sample(kind: str, level: int) -> Sample:
    image = np.full((20, 27, 3), level, np.uint8)
    mask = np.zeros((20, 27), bool)
    mask[6:10, 8:12] = kind != "good"
    return Sample(Path(f"{kind}.png"), kind, image, mask)


REAL, GOOD, MADE = [_sample("hole", 50)], [_sample("good", 120)], [_sample("hole", 250)]


@pytest.fixture
def looks(monkeypatch):
    """Held-out pixel APs that the detector is told, one after another."""

    def tell(*values):
        told = iter(values)
        monkeypatch.setattr(detector, "_held_out_ap", lambda model, held_out: next(told))

    return tell


def test_a_picture_of_any_size_is_scored():
    found = fit(Diet(REAL, GOOD), [], CONFIG, 0)
    assert logits(found.model, REAL[0]).shape == (20, 27)


def test_it_is_trained_as_long_as_was_best(looks):
    looks(0.1, 0.5, 0.4, 0.3)
    found = fit(Diet(REAL, GOOD), REAL, CONFIG, 0)
    assert found.steps == 4
    assert found.curve == ((2, 0.1), (4, 0.5), (6, 0.4), (8, 0.3))


def test_it_stops_looking_when_nothing_improves(looks):
    looks(0.5, 0.4, 0.3)  # a fourth look would raise
    assert fit(Diet(REAL, GOOD), REAL, CONFIG, 0).curve[-1] == (6, 0.3)


def test_in_the_end_it_learns_from_what_was_held_out(looks, monkeypatch):
    fed: list[tuple[int, int]] = []
    steps = detector._steps

    def watched(diet, *rest):
        fed.append((len(diet.real), len(diet.good)))
        return steps(diet, *rest)

    monkeypatch.setattr(detector, "_steps", watched)
    looks(0.5, 0.4, 0.3)
    fit(Diet(REAL, GOOD), REAL + GOOD, CONFIG, 0)
    assert fed == [(1, 1), (2, 2)]


def test_without_held_out_defects_it_is_trained_to_the_end():
    found = fit(Diet(REAL, GOOD), GOOD, CONFIG, 0)
    assert (found.steps, found.curve) == (8, ())


@pytest.mark.parametrize("share", [0.25, 0.3, 0.5])
def test_the_share_holds_over_the_steps(share):
    batches = detector._Batches(Diet(REAL, GOOD, MADE, share), CONFIG, 0, False)
    made = 0
    for step in range(1, 21):
        pixels, mask = batches(step)
        assert pixels.shape == (8, 3, 16, 16)
        shows = mask.flatten(1).any(1)
        assert shows.tolist() == [False] * 4 + [True] * 4
        made += int((pixels[shows].mean((1, 2, 3)) > 0.2).sum())
    assert made == pytest.approx(share * 4 * 20, abs=1)


def test_real_crops_are_the_same_whatever_is_added():
    alone, more = (
        detector._Batches(diet, CONFIG, 3, False)(5)[0]
        for diet in (Diet(REAL, GOOD), Diet(REAL, GOOD, MADE, 0.5))
    )
    assert torch.equal(alone[:6], more[:6])


def test_the_same_seed_gives_the_same_detector():
    first, again, other = (
        logits(fit(Diet(REAL, GOOD), [], CONFIG, seed).model, REAL[0]) for seed in (0, 0, 1)
    )
    assert (first == again).all()
    assert (first != other).any()


def test_it_can_be_stopped():
    with pytest.raises(Cancelled):
        fit(Diet(REAL, GOOD), [], CONFIG, 0, stopped=lambda: True)
