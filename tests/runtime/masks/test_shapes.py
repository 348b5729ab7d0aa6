"""Drawn masks suit their defect type and lie wholly in the image."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from defectrt.masks.shapes import LINES, blob, draw_shape, perlin


def draw_mask(defect_type, shape, window, rng):
    """A mask [H,W] that suits a type of defect, wholly inside the image."""
    cut = draw_shape(defect_type, min(window, *shape), rng)
    y, x = (int(rng.integers(room - size + 1)) for room, size in zip(shape, cut.shape, strict=True))
    out = np.zeros(shape, bool)
    out[y : y + cut.shape[0], x : x + cut.shape[1]] = cut
    return out


DEFECT_TYPES = ["scratch", "crack", "hole", "particle", "dent", "stain", "something else"]


@settings(max_examples=100)
@given(
    st.sampled_from(DEFECT_TYPES),
    st.integers(16, 200),
    st.integers(16, 200),
    st.integers(0, 2**32 - 1),
)
def test_one_piece_inside_the_image(defect_type, h, w, seed):
    mask = draw_mask(defect_type, (h, w), 64, np.random.default_rng(seed))
    assert mask.shape == (h, w)
    assert mask.any()
    assert cv2.connectedComponents(mask.astype(np.uint8))[0] == 2


@pytest.mark.parametrize("defect_type", DEFECT_TYPES)
def test_lines_are_long_and_spots_are_round(defect_type):
    ratios = []
    for seed in range(20):
        mask = draw_mask(defect_type, (200, 200), 64, np.random.default_rng(seed)).astype(np.uint8)
        contour = max(cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0], key=len)
        ratios.append(mask.sum() / (np.pi * cv2.minEnclosingCircle(contour)[1] ** 2))
    assert (np.median(ratios) < 0.25) == (defect_type in LINES)


def test_a_ragged_spot_is_as_deep_in_the_middle_from_every_side():
    """Or a dent of that form would have creases that meet in its middle like the rays of a star."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        depth = blob(rng, np.array([40.0, 40.0]), (81, 81), 30.0, 0.3)
        assert depth[40, 40] == 30
        assert depth[39:42, 39:42].min() > 26


def test_the_same_seed_draws_the_same_and_places_vary():
    def centre(seed):
        return np.argwhere(draw_mask("hole", (300, 300), 64, np.random.default_rng(seed))).mean(0)

    np.testing.assert_array_equal(centre(3), centre(3))
    centres = np.array([centre(seed) for seed in range(40)])
    assert centres.std(axis=0).min() > 50


@settings(max_examples=60)
@given(
    st.sampled_from([*DEFECT_TYPES, "blob", "perlin", "spot"]),
    st.integers(8, 200),
    st.integers(0, 2**32 - 1),
)
def test_a_shape_is_tight_in_one_piece_and_fits_the_window(defect_type, window, seed):
    shape = draw_shape(defect_type, window, np.random.default_rng(seed))
    assert max(shape.shape) <= window
    assert cv2.connectedComponents(shape.astype(np.uint8))[0] == 2
    for edge in (shape[0], shape[-1], shape[:, 0], shape[:, -1]):
        assert edge.any()


def test_a_spot_smaller_than_a_px_is_not_lost():
    assert draw_shape("hole", 9, np.random.default_rng(67108865)).any()


def test_perlin_noise_is_0_on_the_grid_smooth_and_balanced():
    noise = perlin(np.random.default_rng(0), (320, 480), 16)
    assert noise.shape == (320, 480)
    assert np.abs(noise[::16, ::16]).max() < 1e-12
    assert np.abs(np.diff(noise, axis=1)).max() < 0.2
    assert abs(noise.mean()) < 0.05
    assert 0.15 < noise.std() < 0.35


def test_patches_of_noise_are_more_ragged_than_spots():
    def raggedness(defect_type):
        ratios = []
        for seed in range(20):
            shape = draw_shape(defect_type, 128, np.random.default_rng(seed)).astype(np.uint8)
            shape = np.pad(shape, 1)
            contours = cv2.findContours(shape, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)[0]
            ratios.append(sum(map(len, contours)) ** 2 / (4 * np.pi * shape.sum()))
        return np.median(ratios)

    assert raggedness("perlin") > 1.5 * raggedness("spot")
    assert raggedness("blob") > 1.05 * raggedness("spot")
