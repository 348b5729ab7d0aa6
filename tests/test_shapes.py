"""Drawn masks suit their kind and lie wholly in the picture."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from defectrt.shapes import LINES, draw_mask

KINDS = ["scratch", "crack", "hole", "particle", "dent", "stain", "something else"]


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(KINDS), st.integers(16, 200), st.integers(16, 200), st.integers(0, 2**32 - 1)
)
def test_one_piece_inside_the_picture(kind, h, w, seed):
    mask = draw_mask(kind, (h, w), 64, np.random.default_rng(seed))
    assert mask.shape == (h, w)
    assert mask.any()
    assert cv2.connectedComponents(mask.astype(np.uint8))[0] == 2


@pytest.mark.parametrize("kind", KINDS)
def test_lines_are_long_and_spots_are_round(kind):
    ratios = []
    for seed in range(20):
        mask = draw_mask(kind, (200, 200), 64, np.random.default_rng(seed)).astype(np.uint8)
        contour = max(cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0], key=len)
        ratios.append(mask.sum() / (np.pi * cv2.minEnclosingCircle(contour)[1] ** 2))
    assert (np.median(ratios) < 0.25) == (kind in LINES)


def test_the_same_seed_draws_the_same_and_places_vary():
    def centre(seed):
        return np.argwhere(draw_mask("hole", (300, 300), 64, np.random.default_rng(seed))).mean(0)

    np.testing.assert_array_equal(centre(3), centre(3))
    centres = np.array([centre(seed) for seed in range(40)])
    assert centres.std(axis=0).min() > 50
