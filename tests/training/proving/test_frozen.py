"""The detector whose features are frozen: what it sees, what it learns, and that it is quick."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from defectrt.errors import Cancelled, UsageError
from defectrt.training.data.samples import Sample
from defectrt.training.proving.config import FROZEN_STEPS, ProveConfig
from defectrt.training.proving.detector import Diet, fit, logits, speed
from defectrt.training.proving.networks import Lite0, network_name

CONFIG = ProveConfig(synthetic=("made",), backbone="efficientnet-lite0", frozen=True, steps=60)


def picture(seed, hole=None, size=(50, 70)):
    """Grain, and a dark square at ``hole`` if there is one."""
    rng = np.random.default_rng(seed)
    image, mask = rng.integers(110, 140, (*size, 3), np.uint8), np.zeros(size, bool)
    if hole:
        y, x = hole
        mask[y : y + 10, x : x + 10] = True
        image[mask] = 40
    return Sample(Path(f"{seed}.png"), "hole" if hole else "good", image, mask)


REAL = [picture(1, (8, 10)), picture(2, (30, 50))]
GOOD = [picture(3), picture(4)]


@pytest.fixture(scope="module")
def trained():
    return fit(Diet(REAL[:1], GOOD[:1]), [REAL[1], GOOD[1]], CONFIG, 0)


def test_a_defect_elsewhere_is_found_after_a_few_steps(trained):
    unseen = picture(9, (20, 30))
    found = logits(trained.model, unseen)
    assert found.shape == unseen.mask.shape
    assert found[unseen.mask].mean() > found[~unseen.mask].max()


def test_it_takes_all_its_steps_on_what_was_held_out_too(trained):
    assert (trained.steps, trained.curve) == (60, ())
    assert CONFIG.replace(steps=300) == ProveConfig(
        synthetic=("made",), backbone="efficientnet-lite0", frozen=True
    )
    assert FROZEN_STEPS == 300


def test_the_features_stay_and_the_head_learns(trained):
    before, after = Lite0().state_dict(), trained.model.encoder.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(p.requires_grad for p in trained.model.encoder.parameters())


def test_the_same_seed_and_pictures_are_the_same_detector(trained):
    unseen = picture(9, (20, 30))
    again, other = (fit(Diet(REAL, GOOD), (), CONFIG, seed).model for seed in (0, 1))
    assert np.array_equal(logits(again, unseen), logits(trained.model, unseen))
    assert not np.array_equal(logits(other, unseen), logits(again, unseen))


def test_made_ones_count_by_their_share():
    """Made ones that call bright squares defects: by their share they are believed."""
    bright = picture(5, (20, 20))
    bright.image[bright.mask] = 230
    unseen = picture(6, (10, 40))
    unseen.image[unseen.mask] = 230
    none, some = (
        logits(fit(Diet(REAL, GOOD, [bright], share), (), CONFIG, 0).model, unseen)
        for share in (0.01, 0.5)
    )
    assert some[unseen.mask].mean() > none[unseen.mask].mean() + 1


def test_it_can_be_stopped():
    with pytest.raises(Cancelled):
        fit(Diet(REAL, GOOD), (), CONFIG, 0, stopped=lambda: True)


def test_its_name_and_its_need_are_told():
    assert "frozen EfficientNet-Lite0" in network_name(CONFIG)
    assert all(seconds > 0 for seconds in speed(REAL, CONFIG))
    with pytest.raises(UsageError, match="frozen: needs a backbone"):
        ProveConfig(synthetic=("made",), frozen=True)
