"""FID and KID by hand, and against torchmetrics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.image.kid import poly_mmd

from defectrt.training.evaluation.likeness import fid, kid, kid_of_halves

CROSS = torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]])


def test_fid_of_a_shift_is_its_square():
    assert fid(CROSS, CROSS + torch.tensor([3.0, 4.0])) == pytest.approx(25, abs=1e-6)


def test_fid_of_a_larger_spread():
    # standard deviations √(2/3) and twice that, in two directions that do not depend
    assert fid(CROSS, 2 * CROSS) == pytest.approx(2 * 2 / 3)


def _ones(*sides):
    return [np.ones((1, len(side))) for side in sides]


def test_kid_by_hand():
    # one feature, kernel (xy + 1)³: 1 among the zeros, 8 among the ones, 1 between them
    real, made = torch.zeros(2, 1), torch.ones(2, 1)
    assert kid(real, made, *_ones(real, made)).value == pytest.approx(1 + 8 - 2)


def test_kid_is_that_of_torchmetrics():
    rng = torch.Generator().manual_seed(0)
    real, made = (torch.randn(9, 5, generator=rng) + shift for shift in (0, 0.4))
    found = kid(real, made, *_ones(real, made)).value
    assert found == pytest.approx(float(poly_mmd(real, made)), rel=1e-4)


def test_a_picture_drawn_twice_is_not_compared_with_itself():
    real, made = torch.tensor([[0.0], [3.0]]), torch.zeros(2, 1)
    twice, plain = np.array([[2.0, 1]]), np.ones((1, 2))
    # between the two real ones the kernel is 1; 28 = (3·3/1 + 1)³ of one with itself never counts
    assert kid(real, made, twice, plain).low == pytest.approx(1 + 1 - 2)


def test_the_interval_holds_the_value_and_narrows_with_pictures():
    rng = np.random.default_rng(0)

    def wide(count):
        real, made = (torch.tensor(rng.normal(size=(count, 4))) for _ in range(2))
        drawn = [rng.multinomial(count, np.full(count, 1 / count), 400).astype(float)] * 2
        found = kid(real, made, *drawn)
        assert found.low <= found.value <= found.high
        return found.high - found.low

    assert wide(200) < wide(20) / 3


def test_halves_keep_workpieces_whole():
    features = torch.tensor([[0.0], [0], [1], [1]])
    # each half is one workpiece: the two distances are both 7
    assert kid_of_halves(features, np.array([0, 0, 1, 1])) == pytest.approx(7)
    assert kid_of_halves(features, np.array([0, 0, 0, 0])) is None
