"""Rates, thresholds and limits by hand."""

from __future__ import annotations

import numpy as np
import pytest

from defectrt.training.thresholds.chances import (
    best_f1_at,
    detection,
    rate,
    threshold_finding,
    threshold_for,
)

SCORES = np.array([1.0, 2, 3, 4, 5, 6, 7, 8, 9, 10])


@pytest.mark.parametrize(("allowed", "alarms"), [(0.05, 0), (0.1, 1), (0.29, 2), (0.3, 3)])
def test_no_more_alarms_than_allowed_and_no_threshold_below(allowed, alarms):
    found = threshold_for(SCORES, allowed)[0]
    assert (found <= SCORES).sum() == alarms
    assert (found * (1 - 1e-6) <= SCORES).sum() == alarms + 1


def test_scores_of_either_precision_do_not_reach_it():
    scores = np.array([0.1, 0.7, 0.1 + 0.2])
    found = float(threshold_for(scores, 0.1)[0])
    assert not (scores >= found).any()
    assert not (scores.astype(np.float32) >= found).any()


def test_ties_raise_fewer_alarms_rather_than_more():
    found = threshold_for(np.array([1.0, 5, 5, 5]), 0.5)[0]
    assert (np.array([1.0, 5, 5, 5]) >= found).sum() == 0


def test_a_weight_counts_as_a_picture():
    weights = np.ones((1, 10))
    weights[0, 9] = 0  # as if the highest were not there
    assert threshold_for(SCORES, 0.05, weights)[0] == np.nextafter(np.float32(9), np.float32(10))


def test_the_threshold_that_finds_a_share():
    assert threshold_finding(SCORES, 0.9) == 2
    assert threshold_finding(SCORES, 0.85) == 2
    assert threshold_finding(SCORES, 1 / 3) == 7


def test_the_threshold_of_the_best_f1_does_not_depend_on_numbers():
    good, bad = np.array([1.0, 2, 3]), np.array([2.5, 4, 5])
    # from 2.5: all found, a third alarms, F1 = 2 / (2 + 1/3); from 4: F1 = 4/3 / (5/3) = 0.8
    assert best_f1_at(bad, good) == 2.5
    assert best_f1_at(bad, np.repeat(good, 50)) == 2.5
    assert best_f1_at(np.append(bad, 0), good) == 2.5


def test_wilson_by_hand():
    z = 1.959964
    none = rate(np.zeros(20, bool), np.arange(20))
    assert (none.value, none.low) == (0, 0)
    assert none.high == pytest.approx(z**2 / (20 + z**2))
    half = rate(np.repeat([True, False], 5), np.arange(10))
    assert (half.low + half.high) / 2 == pytest.approx(0.5)
    assert half.high == pytest.approx(0.5 + z * np.sqrt(1 / 40 + z**2 / 400) / (1 + z**2 / 10))


def test_pictures_of_one_workpiece_count_once():
    one, ten = (rate(np.repeat([True, False], 10), p) for p in (np.arange(20) // 10, np.arange(20)))
    assert one.workpieces == 2
    assert one.count == ten.count == 20
    assert one.high - one.low > 2 * (ten.high - ten.low) * 0.9
    assert rate(np.zeros(0, bool), np.zeros(0, int)) is None


def _sizes(count=4000):
    """The chance of detection is ½ at 50 px and rises by a factor e of the odds each ln 1.25."""
    rng = np.random.default_rng(0)
    sizes = np.exp(rng.uniform(np.log(5), np.log(500), count))
    chance = 1 / (1 + np.exp(-(np.log(sizes / 50)) / np.log(1.25)))
    return sizes, rng.random(count) < chance, rng.multinomial(count, np.full(count, 1 / count), 60)


def test_the_limit_of_a_known_law():
    sizes, hits, weights = _sizes()
    found = detection(sizes, hits, weights.astype(float), 0.9, logarithmic=True)
    exact = 50 * np.exp(np.log(9) * np.log(1.25))
    assert found.limit == pytest.approx(exact, rel=0.1)
    assert found.limit < found.sure < 1.25 * exact
    at = np.interp(50, found.x, found.chance)
    assert at == pytest.approx(0.5, abs=0.05)
    low, high = (np.interp(50, found.x, side) for side in (found.low, found.high))
    assert low < at < high


@pytest.mark.parametrize("all_found", [True, False])
def test_no_limit_where_all_or_nothing_is_found(all_found):
    sizes = np.linspace(1, 9, 30)
    found = detection(sizes, np.full(30, all_found), np.ones((5, 30)), 0.9)
    assert found.limit is None
    assert found.sure is None


def test_no_limit_beyond_what_was_tested():
    sizes, hits, weights = _sizes(600)
    small = sizes < 40
    found = detection(sizes[small], hits[small], weights[:, small].astype(float), 0.9)
    assert found.limit is None
    assert detection(np.ones(5), np.ones(5, bool), np.ones((3, 5)), 0.9) is None


def test_scores_finer_than_float32_keep_their_alarms():
    good = 0.9 + np.arange(100) * 1e-10
    (threshold,) = threshold_for(good, 0.1)
    assert (good >= threshold).sum() == 10
    (large,) = threshold_for(np.array([1e39, 2e39]), 0.0)
    assert 2e39 < large < np.inf
