"""How strong a defect is, beside drawn ones whose contrast is known."""

from __future__ import annotations

import numpy as np
import pytest

from defectrt.images.contrast import strength_in, surroundings


def drawn(defect, around=120, shape=(40, 50), dtype=np.uint8, channels=1):
    image = np.full((*shape, channels), around, dtype)
    mask = np.zeros(shape, bool)
    mask[15:23, 20:30] = True
    image[mask] = defect
    return image, mask


@pytest.mark.parametrize(
    ("defect", "strength"), [(60, 0.5), (0, 1.0), (120, 0.0), (180, 0.5), (240, 1.0), (108, 0.1)]
)
def test_it_is_webers_contrast_whether_dark_or_bright(defect, strength):
    assert strength_in(*drawn(defect)) == pytest.approx(strength, abs=1e-4)


def test_neither_bits_nor_channels_nor_alpha_change_it():
    assert strength_in(*drawn(60 * 257, 120 * 257, dtype=np.uint16)) == pytest.approx(0.5, abs=1e-4)
    assert strength_in(*drawn((40, 60, 80), channels=3)) == pytest.approx(0.5, abs=1e-4)
    image, mask = drawn((60, 7), channels=2)
    assert strength_in(image, mask) == pytest.approx(0.5, abs=1e-4)


def test_single_px_decide_nothing():
    image, mask = drawn(60)
    image[16, 21] = 0
    image[22, 29] = 255
    assert strength_in(image, mask) == pytest.approx(0.5, abs=1e-4)


def test_its_surroundings_are_near_it_and_not_its_soft_edge():
    image, mask = drawn(60)
    image[13:25, 18:32] = 80  # up to 2 px from it
    image[:5] = image[:, 40:] = 250  # more than 8 px from it
    assert surroundings(image[..., 0] / np.float32(255), mask) == pytest.approx(120 / 255)


def test_a_mask_of_everything_has_no_strength():
    image, _ = drawn(60)
    assert strength_in(image, np.ones((40, 50), bool)) is None
