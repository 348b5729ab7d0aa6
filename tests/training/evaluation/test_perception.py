"""Distances and diversity by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from defectrt.training.evaluation.perception import Perceived, diversity, diversity_within


def test_a_distance_is_between_directions_of_channels():
    across, up = torch.tensor([2.0, 0]).view(1, 2, 1, 1), torch.tensor([0, 5.0]).view(1, 2, 1, 1)
    plain = Perceived([across]).distances(Perceived([torch.cat([across, up])]))
    assert plain == pytest.approx(np.array([[0, 2]]), abs=1e-6)
    weights = [torch.tensor([1.0, 0.5])]
    weighted = Perceived([across], weights).distances(Perceived([up], weights))
    assert weighted == pytest.approx(np.array([[1.5]]))


def test_places_are_averaged_and_levels_add_up():
    one = torch.tensor([1.0, 0]).view(1, 2, 1, 1).repeat(1, 1, 1, 4)
    other = one.clone()
    other[0, :, 0, 0] = torch.tensor([0.0, 1])  # one of four places differs by 2
    levels = [one, one], [other, other]
    assert Perceived(levels[0]).distances(Perceived(levels[1])) == pytest.approx(
        np.array([[1.0]]), abs=1e-6
    )


def test_under_a_mask_the_rest_does_not_count():
    one = torch.tensor([1.0, 0]).view(1, 2, 1, 1).repeat(1, 1, 1, 4)
    other = one.clone()
    other[0, :, 0, 0] = torch.tensor([0.0, 1])
    masks = torch.tensor([[[1.0, 1, 0, 0]], [[0, 0, 1, 1]]])
    found = Perceived([one]).distances_in(Perceived([other.repeat(2, 1, 1, 1)]), masks)
    assert found == pytest.approx(np.array([[1.0, 0.0]]), abs=1e-6)


DISTANCES = np.array([[0.0, 1, 5, 5], [1, 0, 5, 5], [5, 5, 0, 3], [5, 5, 3, 0]])


def test_diversity_is_the_mean_over_pairs():
    assert diversity(DISTANCES) == pytest.approx((1 + 3 + 4 * 5) / 6)
    assert diversity(DISTANCES, np.array([[1.0, 1, 0, 0]])) == pytest.approx(1)


def test_diversity_within_does_not_count_pairs_of_different_clusters():
    assert diversity_within(DISTANCES, np.array([0, 0, 1, 1])) == pytest.approx((1 + 3) / 2)
    assert diversity_within(DISTANCES, np.array([0, 0, 0, 1])) == pytest.approx((1 + 5 + 5) / 3)
    assert np.isnan(diversity_within(DISTANCES, np.arange(4))).all()
