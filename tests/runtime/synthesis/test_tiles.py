"""Spots in tiles: each fits its window, together they are the instance, neighbours follow on."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest

from defectrt.synthesis.tiles import cut

SIDE, CONTEXT = 32, 8


def line(start, end, shape=(300, 400), width=3):
    mask = np.zeros(shape, np.uint8)
    cv2.line(mask, start, end, 1, width)
    return mask > 0


def painted(tiles, shape):
    """How often each px is painted."""
    times = np.zeros(shape, int)
    for tile in tiles:
        part = np.zeros(shape, bool)
        tile.window.paste(part, tile.mask)
        times += part
    return times


@pytest.mark.parametrize(
    ("length", "side", "count"), [(10, 32, 1), (16, 32, 1), (48, 64, 1), (49, 32, 4), (200, 32, 13)]
)
def test_at_its_own_resolution_scaled_or_in_pieces(length, side, count):
    """To 16 px: the window of 32. To 48: one of up to 64, scaled. Longer: pieces of up to 16 px."""
    mask = np.zeros((80, 300), bool)
    mask[40, 20 : 20 + length] = True
    tiles = list(cut(mask, SIDE, CONTEXT))
    assert len(tiles) == count
    assert {tile.window.side for tile in tiles} == {side}
    np.testing.assert_array_equal(painted(tiles, mask.shape), mask)


@pytest.mark.parametrize(("length", "count"), [(16, 1), (17, 2), (48, 3)])
def test_what_was_learned_enlarged_is_never_made_smaller(length, count):
    mask = np.zeros((80, 300), bool)
    mask[40, 20 : 20 + length] = True
    tiles = list(cut(mask, SIDE, CONTEXT, scale=1))
    assert len(tiles) == count
    assert {tile.window.side for tile in tiles} == {SIDE}
    np.testing.assert_array_equal(painted(tiles, mask.shape), mask)


@pytest.mark.parametrize(
    "mask",
    [
        line((5, 5), (390, 290)),
        line((390, 5), (5, 290)),
        line((200, 0), (200, 299)),
        np.ones((90, 120), bool),
        np.random.default_rng(0).random((120, 90)) < 0.01,
    ],
    ids=["falling", "rising", "upright", "full", "specks"],
)
def test_every_px_is_painted_once_with_room_around_it(mask):
    tiles = list(cut(mask, SIDE, CONTEXT))
    assert len(tiles) > 1
    np.testing.assert_array_equal(painted(tiles, mask.shape), mask)
    for tile in tiles:
        ys, xs = tile.mask.nonzero()
        window = tile.window
        assert window.side == SIDE
        for low, high, corner, size in (
            (ys.min(), ys.max(), window.y, mask.shape[0]),
            (xs.min(), xs.max(), window.x, mask.shape[1]),
        ):
            assert low >= CONTEXT or corner == 0
            assert SIDE - 1 - high >= CONTEXT or corner + SIDE == size


@pytest.mark.parametrize("ends", [((5, 5), (390, 290)), ((5, 150), (390, 150)), ((9, 5), (9, 290))])
def test_along_a_line_each_tile_continues_the_one_before(ends):
    tiles = list(cut(line(*ends), SIDE, CONTEXT))
    for one, two in pairwise(tiles):
        seen = painted([one], (300, 400)).astype(np.uint8)
        near = cv2.dilate(seen, np.ones((3, 3), np.uint8))
        assert (near & painted([two], (300, 400))).any()
        assert two.window.crop(seen).any()  # it sees what was painted


def test_room_that_does_not_fit_the_window_makes_the_window_larger():
    mask = line((20, 20), (380, 20))
    tiles = list(cut(mask, SIDE, 30))
    np.testing.assert_array_equal(painted(tiles, mask.shape), mask)
    assert all(SIDE < tile.window.side <= SIDE // 2 + 60 for tile in tiles)
