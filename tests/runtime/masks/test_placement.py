"""A shape is placed whole inside its region, uniformly, wherever it fits; or not at all."""

from __future__ import annotations

import tracemalloc

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from defectrt.masks import placement
from defectrt.masks.placement import find_place, fits, grow, paste, place


def all_corners(region, shape):
    """By the definition, corner by corner."""
    return {
        (y, x)
        for y in range(region.shape[0] - shape.shape[0] + 1)
        for x in range(region.shape[1] - shape.shape[1] + 1)
        if not (shape & ~region[y : y + shape.shape[0], x : x + shape.shape[1]]).any()
    }


def tight_shape(rng, h, w):
    shape = rng.random((h, w)) < rng.uniform(0.1, 1)
    shape[[0, -1], rng.integers(w, size=2)] = True
    shape[rng.integers(h, size=2), [0, -1]] = True
    return shape


@pytest.mark.slow
@settings(max_examples=300)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    free=st.floats(0, 1),
    strip=st.sampled_from([1, 50, 1 << 21]),
    tries=st.sampled_from([0, 4]),
)
def test_a_place_is_found_exactly_if_there_is_one(seed, size, shape, free, strip, tries):
    rng = np.random.default_rng(seed)
    region, shape = rng.random(size) < free, tight_shape(rng, *shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(placement, "_STRIP", strip)
        patch.setattr(placement, "_RANDOM", tries)
        corner = find_place(region, shape, rng)
    corners = all_corners(region, shape)
    assert (corner in corners) if corners else corner is None
    if corner:
        mask = paste(shape, corner, size)
        assert mask.sum() == shape.sum()
        assert not mask[~region].any()
        assert fits(region, shape, corner)


@pytest.mark.slow
@settings(max_examples=100)
@given(seed=st.integers(0, 2**32 - 1), margin=st.integers(1, 5), free=st.floats(0.9, 1))
def test_a_margin_keeps_the_surroundings_off_what_is_forbidden(seed, margin, free):
    rng = np.random.default_rng(seed)
    region, shape = rng.random((30, 30)) < free, tight_shape(rng, 4, 5)
    corner = find_place(region, shape, rng, margin)
    near = {
        c
        for c in all_corners(np.ones_like(region), shape)
        if not (cv2_distance(paste(shape, c, region.shape)) <= margin)[~region].any()
    }
    assert (corner in near) if near else corner is None


def cv2_distance(mask):
    return cv2.distanceTransform(1 - mask.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)


@pytest.mark.slow
@pytest.mark.parametrize("tries", [0, 64], ids=["exhaustive", "random"])
def test_places_are_uniform(monkeypatch, tries):
    monkeypatch.setattr(placement, "_RANDOM", tries)
    monkeypatch.setattr(placement, "_STRIP", 20)
    region = np.zeros((12, 10), bool)
    region[1:4, 1:9] = region[6:11, 2:5] = True
    shape = np.ones((2, 2), bool)
    corners = sorted(all_corners(region, shape))
    rng, count = np.random.default_rng(0), 4000
    found = [find_place(region, shape, rng) for _ in range(count)]
    seen = np.array([found.count(c) for c in corners])
    assert seen.sum() == count
    expected = count / len(corners)
    chi2 = ((seen - expected) ** 2 / expected).sum()
    assert chi2 < 50  # 21 degrees of freedom: p = 0.0004


def test_shapes_that_do_not_fit_are_tried_smaller_and_then_given_up():
    region = np.zeros((50, 50), bool)
    region[10:22, 10:22] = True
    scales = []

    def square(scale):
        scales.append(scale)
        return np.ones((round(20 * scale),) * 2, bool), f"{scale:.2f}"

    shape, corner, made = place(square, region, np.random.default_rng(0))
    assert len(shape) == 12
    assert corner == (10, 10)
    assert made == "0.61"
    assert scales[0] == 1
    assert scales == sorted(scales, reverse=True)
    assert place(square, region[:18], np.random.default_rng(0)) is None


def test_a_large_region_with_one_place_takes_little_memory():
    region = np.zeros((3000, 4000), bool)
    region[::2] = True
    region[2000:2006, 3000:3006] = True
    tracemalloc.start()
    corner = find_place(region, np.ones((6, 6), bool), np.random.default_rng(0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert corner == (2000, 3000)
    assert peak < 150 << 20


def test_grow():
    shape = grow(np.ones((1, 1), bool), 2)
    assert shape.astype(int).tolist() == [
        [0, 0, 1, 0, 0], [0, 1, 1, 1, 0], [1, 1, 1, 1, 1], [0, 1, 1, 1, 0], [0, 0, 1, 0, 0],
    ]  # fmt: skip
