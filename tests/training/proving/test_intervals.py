"""Intervals by workpiece and by training; verdicts of made-up figures."""

from __future__ import annotations

import numpy as np
import pytest

from defectrt.training.proving.intervals import Gain, gain, resampled, verdict


def test_a_workpiece_is_drawn_whole():
    weights = resampled([7, 7, 3, 5], seed=0, draws=200)
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, [0, 2, 3]].sum(axis=1) == 3).all()
    assert weights.std(axis=0).min() > 0


def test_trainings_that_agree_leave_the_scatter_of_the_pictures():
    drawn = np.random.default_rng(0).normal(0.1, 0.02, 4000)
    found = gain([0.1, 0.1, 0.1], [drawn] * 3)
    assert (found.low, found.high) == pytest.approx((0.1 - 0.0392, 0.1 + 0.0392), abs=0.002)


def test_trainings_that_differ_widen_it_by_student_t():
    still = np.full(200_000, 0.1)
    found = gain([0.0, 0.1, 0.2], [still] * 3)
    wide = 4.303 * 0.1 / np.sqrt(3)  # t of 2 degrees
    assert found.mean == pytest.approx(0.1)
    assert found.high - found.mean == pytest.approx(wide, rel=0.05)


def test_several_tried_arms_widen_it():
    drawn = np.random.default_rng(0).normal(0, 0.01, 4000)
    one, four = (gain([0.0, 0.01], [drawn, drawn], compared=n) for n in (1, 4))
    assert four.low < one.low
    assert four.high > one.high


def test_one_training_tells_no_interval():
    assert gain([0.3], [np.zeros(10)]) == Gain(0.3, None, None, 1)


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.01, 0.2, "helps"),
        (-0.2, -0.1, "does not help"),
        (-0.05, 0.01, "does not help"),
        (-0.05, 0.1, "cannot be told yet"),
        (None, None, "cannot be told yet"),
    ],
)
def test_verdict(low, high, said):
    assert verdict(Gain(0.0, low, high, 3), worth=0.02) == said


def test_an_interval_stays_within_what_is_possible():
    still = np.full(1000, 0.5)
    assert gain([0.0, 1.0], [still, still], least=0.0) == Gain(0.5, 0.0, 1.0, 2)
    assert gain([-1.0, 1.0], [still, still]) == Gain(0.0, -1.0, 1.0, 2)
