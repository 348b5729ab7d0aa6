"""A transplanted mask stays the defect it was: in one piece, exact where it can be, never lost."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.outputs import save

from defectrt.errors import InputError
from defectrt.masks.bank import read_bank, transplant
from defectrt.masks.pieces import tight
from defectrt.masks.shapes import draw_shape


def count(mask):
    return cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[0] - 1


def crack(seed=0, kind="crack"):
    return draw_shape(kind, 64, np.random.default_rng(seed))


def walk(rng, n):
    """A mask whose pixels touch at corners only, here and there: the thinnest that holds."""
    steps = rng.choice([[0, 1], [1, 1], [1, 0], [1, -1]], n)
    y, x = np.cumsum(steps, axis=0).T
    mask = np.zeros((n + 1, 2 * n + 2), bool)
    mask[y, x + n] = True
    return tight(mask)


@settings(max_examples=150)
@example(seed=949, angle=0.0, scale=0.201171875, mirror=True, area=1)
@given(
    seed=st.integers(0, 2**32 - 1),
    angle=st.floats(-400, 400),
    scale=st.floats(0.2, 4),
    mirror=st.booleans(),
    area=st.integers(1, 60),
)
def test_in_one_piece_tight_and_not_below_the_smallest_area(seed, angle, scale, mirror, area):
    rng = np.random.default_rng(seed)
    shape = walk(rng, 30) if seed % 2 else crack(seed)
    moved = transplant(shape, angle, scale, mirror=mirror, min_area=area)
    assert count(moved) == count(shape) == 1
    assert moved.sum() >= area
    for edge in (moved[0], moved[-1], moved[:, 0], moved[:, -1]):
        assert edge.any()


def test_pieces_close_together_stay_as_many_at_most():
    rng = np.random.default_rng(0)
    shape = cv2.dilate((rng.random((40, 40)) < 0.01).astype(np.uint8), np.ones((4, 4))) > 0
    assert count(shape) > 5
    for angle in range(0, 360, 25):
        assert 1 <= count(transplant(shape, angle, 1.1)) <= count(shape)


@pytest.mark.parametrize("quarters", range(4))
def test_quarter_turns_and_mirrors_move_pixels_and_change_none(quarters):
    shape = crack()
    np.testing.assert_array_equal(transplant(shape, 90 * quarters), np.rot90(shape, quarters))
    mirrored = transplant(shape, 90 * quarters, mirror=True)
    np.testing.assert_array_equal(mirrored, np.rot90(shape[:, ::-1], quarters))


@pytest.mark.parametrize(("scale", "angle"), [(1, 30), (2, 0), (0.5, 200), (1.5, 100)])
def test_a_solid_shape_keeps_its_area_and_turns_by_the_angle(scale, angle):
    shape = np.ones((20, 60), bool)
    moved = transplant(shape, angle, scale)
    assert moved.sum() == pytest.approx(1200 * scale**2, rel=0.05)
    y, x = moved.nonzero()
    values, vectors = np.linalg.eigh(np.cov(x, -y))  # y counts downwards, angles upwards
    found = np.degrees(np.arctan2(*vectors[::-1, 1])) % 180
    assert abs((found - angle + 90) % 180 - 90) < 1.5
    assert (values[1] / values[0]) ** 0.5 == pytest.approx(3, rel=0.05)


def test_scaling_by_two_is_exact():
    shape = crack()
    np.testing.assert_array_equal(transplant(shape, 0, 2), shape.repeat(2, 0).repeat(2, 1))


def test_a_bank_takes_masks_and_leaves_the_images_beside_them(tmp_path):
    mask = np.zeros((30, 50), np.uint8)
    mask[3:6, 4:9] = 1  # small values are classes
    mask[20:24, 40:49] = 2
    noise = np.random.default_rng(0).integers(1, 255, (30, 50)).astype(np.uint8)
    for name in ("a/1.jpg", "a/2.png", "3.bmp"):
        save(tmp_path / name, noise)
    for name in ("a/1.png", "a/2_mask.png", "3_mask.bmp"):
        save(tmp_path / name, mask)
    save(tmp_path / "empty.png", mask * 0)
    entries = read_bank(tmp_path, 10)
    assert [(e.file, e.piece) for e in entries] == [
        ("3_mask.bmp", 0), ("3_mask.bmp", 1),
        ("a/1.png", 0), ("a/1.png", 1),
        ("a/2_mask.png", 0), ("a/2_mask.png", 1),
    ]  # fmt: skip
    assert {e.shape.shape for e in entries} == {(3, 5), (4, 9)}
    assert len(read_bank(tmp_path, 40)) == 3


def test_a_bank_that_is_none(tmp_path):
    with pytest.raises(InputError, match="nowhere: no such folder of masks"):
        read_bank(tmp_path / "nowhere", 10)
    with pytest.raises(InputError, match="holds no masks that are not empty"):
        read_bank(tmp_path, 10)
    save(tmp_path / "photo.png", np.full((9, 9), 130, np.uint8))
    with pytest.raises(InputError, match=r"photo.png: the mask covers everything"):
        read_bank(tmp_path, 10)


def test_jpeg_masks_are_cut_in_the_middle(tmp_path):
    mask = np.zeros((40, 40), np.uint8)
    mask[11:24, 9:30] = 255
    save(tmp_path / "m.jpg", mask)
    (entry,) = read_bank(tmp_path, 10)
    assert entry.shape.shape == (13, 21)
    assert entry.shape.all()
