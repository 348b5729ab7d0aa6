"""Measuring a model: what is measured is checked where the answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from defectrt.config.synthesis import SynthesisConfig
from defectrt.training.evaluation.probe import Probe, appearance, outside_error
from defectrt.training.models.stable_diffusion import SIZES, new_model

#: Importing diffusers and opening models takes seconds.
pytestmark = pytest.mark.slow


def crops(n=2, size=32):
    rng = np.random.default_rng(0)
    pixels = rng.uniform(-0.2, 0.2, (n, 3, size, size)).astype(np.float32)
    mask = np.zeros((n, 1, size, size), np.float32)
    mask[:, :, 8:16, 8:20] = 1
    return pixels, mask


@pytest.fixture(scope="module")
def probe():
    return Probe(new_model(SIZES["tiny"]), ["spot", "line"], steps=3)


def test_the_error_counts_the_outside_only():
    pixels, mask = crops()
    assert outside_error(pixels + mask, pixels, mask) == pytest.approx(0, abs=1e-6)
    assert outside_error(pixels + 0.25 * (1 - mask), pixels, mask) == pytest.approx(0.25, rel=1e-4)
    assert outside_error(pixels + 1, pixels, np.ones_like(mask)) == pytest.approx(0)


def test_a_defect_appears_if_it_can_be_seen_under_the_mask():
    before, mask = crops(5)
    after = before.copy()
    after[1] += 0.5 * mask[1]  # plain to see
    after[2] += 0.01 * mask[2]  # nothing anybody would label
    after[3] += 0.5 * (1 - mask[3])  # next to the mask
    after[4] = np.nan
    assert appearance(before, after, mask).tolist() == [False, True, False, False, False]


def test_a_region_need_not_be_filled():
    """Where images are seen whole, a mask says where a part may be missing, not its outline."""
    before, mask = crops(1)
    part = np.zeros_like(mask)
    part[:, :, 8:10, 8:13] = mask[:, :, 8:10, 8:13]
    assert 0 < part.sum() < 0.2 * mask.sum()
    after = before + 0.5 * part
    assert not appearance(before, after, mask).any()
    assert appearance(before, after, mask, fills=False).all()
    assert not appearance(before, before, mask, fills=False).any()


def test_a_good_surface_that_is_painted_anew_is_no_defect():
    """The test by which samples are kept, not another."""
    rng = np.random.default_rng(1)
    grain = rng.normal(0, 0.3, (2, 20, 1, 32, 32)).astype(np.float32)
    before, anew = grain.repeat(3, axis=2)
    _, mask = crops(20)
    after = np.where(mask > 0, anew, before)
    assert appearance(before, after, mask).sum() <= 1
    assert appearance(before, after, mask, SynthesisConfig(min_grain=0)).sum() >= 10
    assert appearance(before, after - 0.6 * mask, mask).all()


def test_what_is_made_is_a_function_of_seed_and_number(probe):
    pixels, mask = crops()
    made = probe.make(pixels, mask, ["spot", "line"])
    assert made.before.shape == made.after.shape == pixels.shape
    assert made.latent_error.shape == (2,)
    alone = probe.make(pixels[1:], mask[1:], ["line"], items=[1])
    np.testing.assert_allclose(alone.after[0], made.after[1], atol=1e-4)
    other = probe.make(pixels, mask, ["spot", "line"], seed=1)
    assert np.abs(other.after - made.after).max() > 1e-3


def test_the_background_branch_is_measured_not_assumed(probe, monkeypatch):
    """A model that predicts no noise at all comes back to where it started."""
    pixels, mask = crops()
    assert probe.make(pixels, mask, ["spot", "line"]).latent_error.min() > 1e-4
    monkeypatch.setattr(probe, "_net", lambda latent, *rest: torch.zeros_like(latent))
    assert probe.make(pixels, mask, ["spot", "line"]).latent_error == pytest.approx(0, abs=1e-5)
