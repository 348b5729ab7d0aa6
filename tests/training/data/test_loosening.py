"""Loose masks: around the whole defect, of a form that a tight one never has, never too much."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from defectrt.training.data.crops import Augmentation, Crops
from defectrt.training.data.loosening import loosened
from defectrt.training.data.samples import Sample


def line():
    mask = np.zeros((96, 96), np.uint8)
    cv2.line(mask, (30, 40), (60, 55), (1,), 3)
    return mask > 0


def disc():
    mask = np.zeros((96, 96), np.uint8)
    cv2.circle(mask, (50, 45), 9, (1,), -1)
    return mask > 0


def many(mask, count=60):
    return [loosened(mask, np.random.default_rng(seed)) for seed in range(count)]


def is_box(mask):
    ys, xs = np.nonzero(mask)
    return mask[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1].all()


@pytest.mark.parametrize("draw", [line, disc])
def test_the_defect_lies_inside_and_has_room(draw):
    mask = draw()
    for loose in many(mask):
        assert (mask <= loose).all()
        assert loose.sum() > 1.1 * mask.sum()


def test_a_spot_gets_a_box_and_a_line_a_box_or_a_stroke():
    assert all(map(is_box, many(disc())))
    boxes = sum(map(is_box, many(line())))
    assert 15 < boxes < 45


def test_what_would_leave_no_background_stays_as_it_is():
    mask = np.zeros((96, 96), bool)
    mask[4:90, 4:90] = np.eye(86, dtype=bool)
    assert any((loose == mask).all() for loose in many(mask))
    assert all(loose.mean() <= 0.6 for loose in many(mask))


def test_nothing_stays_nothing():
    nothing = np.zeros((96, 96), bool)
    assert not loosened(nothing, np.random.default_rng(0)).any()


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 0, 0), (0.5, 15, 45), (1.0, 60, 60)])
def test_a_share_of_the_crops_is_loose_and_the_pixels_stay(tmp_path, share, least, most):
    image = np.full((96, 96, 3), 128, np.uint8)
    image[disc()] = 20
    sample = Sample(tmp_path / "a.png", "hole", image, disc())
    vary = Augmentation("none", contrast=0, brightness=0, loose=share)
    batch = Crops([sample], 96, good=0, augmentation=vary).batch(0, 60)
    loose = [m.sum() > disc().sum() for m in batch.mask]
    assert least <= sum(loose) <= most
    for pixels, mask in zip(batch.pixels, batch.mask, strict=True):
        assert mask[0][pixels[0] < -0.5].all()  # the defect is under the mask, wherever it went
