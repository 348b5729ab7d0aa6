"""The search on scores whose truth is known: it finds what is better, and noise does not win."""

from __future__ import annotations

import numpy as np
import pytest

from defectrt.training.tuning.search import Score, search

OTHERS = tuple("abcdefgh")


class Scores:
    """Scores of known means with noise; every one takes a second."""

    def __init__(self, means, noise, seed):
        self.means, self.noise, self.seed, self.asked = means, noise, seed, []

    def __call__(self, setting, number):
        self.asked.append((setting, number))
        rng = np.random.default_rng([self.seed, number, sum(map(ord, setting))])
        value = self.means.get(setting, 0.4) + self.noise * rng.normal()
        return Score(float(value), value + 0.01 * rng.normal(size=200), 1.0)


def found(scores, budget=60.0, together=lambda a, b: None):
    return search(["defaults", *OTHERS], scores, budget, real="real", together=together)


def test_a_clearly_better_setting_is_found_and_confirmed_in_fresh_rounds():
    scores = Scores({"d": 0.6}, 0.02, 0)
    outcome = found(scores)
    assert outcome.chosen == outcome.best == "d"
    assert outcome.confirmed.low > 0
    assert outcome.confirmed.mean == pytest.approx(0.2, abs=0.05)
    trial = next(t for t in outcome.trials if t.setting == "d")
    assert trial.fresh
    assert not trial.values.keys() & trial.fresh.keys()


def test_noise_alone_keeps_the_defaults():
    """But for the one time in forty that an interval of 95 % lies above zero by chance."""
    chosen = [found(Scores({}, 0.05, seed)).chosen for seed in range(80)]
    assert chosen.count("defaults") >= 76


def test_the_figure_of_the_chosen_is_not_that_of_the_luckiest():
    """In choosing the best of many is too good; in fresh rounds it is not."""
    outcomes = [found(Scores({}, 0.05, seed)) for seed in range(40)]
    outcomes = [o for o in outcomes if o.best and o.confirmed]
    first = [next(t for t in o.trials if t.setting == o.best).gain.mean for o in outcomes]
    assert len(outcomes) > 30
    assert np.mean(first) > 0.03
    assert abs(np.mean([o.confirmed.mean for o in outcomes])) < 0.015


def test_real_alone_is_scored_and_never_chosen():
    scores = Scores({"real": 0.9}, 0.02, 0)
    outcome = found(scores)
    assert outcome.chosen != "real"
    assert outcome.best != "real"
    assert outcome.over_real.high < 0


def test_two_that_help_are_tried_together():
    means = {"a": 0.5, "b": 0.5, "ab": 0.65}
    outcome = found(Scores(means, 0.01, 0), together=lambda a, b: "".join(sorted(a + b)))
    assert outcome.chosen == "ab"


@pytest.mark.parametrize("budget", [1, 5, 9, 20, 40])
def test_the_budget_is_kept(budget):
    scores = Scores({"d": 0.6}, 0.02, 0)
    outcome = found(scores, budget)
    assert outcome.seconds == len(scores.asked) <= budget
    assert {t.setting for t in outcome.trials} | set(outcome.untried) >= {"defaults", *OTHERS}


def test_without_time_to_confirm_the_defaults_stay():
    outcome = found(Scores({"d": 0.6}, 0.001, 0), 11)
    assert outcome.best == "d"
    assert outcome.confirmed is None
    assert outcome.chosen == "defaults"


def test_nothing_is_scored_twice():
    scores = Scores({"d": 0.6, "e": 0.55}, 0.02, 0)
    found(scores, 200)
    assert len(scores.asked) == len(set(scores.asked))
