"""Where a defect may be is known or refused, never guessed."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from support.outputs import save

from defectrt.errors import InputError
from defectrt.images.reading import read_image
from defectrt.masks.regions import (
    Everywhere,
    Foreground,
    RegionFile,
    RegionFolder,
    foreground,
    shrunk,
)


def scene(form, dtype=np.uint8, channels=3, size=(300, 400), part=(0.6, 0.55, 0.5), seed=0):
    """A part before an unevenly lit, noisy background, and its true mask."""
    rng, (h, w) = np.random.default_rng(seed), size
    y, x = np.mgrid[:h, :w]
    background = 0.15 + 0.1 * x / w + 0.05 * (y / h) ** 2
    mask = np.zeros(size, np.uint8)
    if form in ("disc", "washer"):
        cv2.circle(mask, (w // 2, h // 2), h // 3, 1, -1)
    if form == "washer":
        cv2.circle(mask, (w // 2, h // 2), h // 8, 0, -1)
    if form == "cut off":
        mask[: h * 2 // 3, w // 3 : w * 3 // 4] = 1
    if form == "two":
        mask[h // 4 : h // 2, w // 8 : w // 3] = mask[h // 3 : h * 3 // 4, w // 2 : -w // 8] = 1
    grain = np.array(part) * (1 + 0.2 * np.sin(x / 9))[..., None] + rng.normal(0, 0.05, (h, w, 3))
    noise = rng.normal(0, 0.015, (h, w, 3))
    image = np.where(mask[..., None] > 0, grain, background[..., None] + noise).clip(0, 1)
    levels = (image * np.iinfo(dtype).max).astype(dtype)
    return levels[..., :channels], mask > 0


@pytest.mark.parametrize("form", ["disc", "washer", "cut off", "two"])
@pytest.mark.parametrize(("dtype", "channels"), [(np.uint8, 3), (np.uint16, 1)])
@pytest.mark.parametrize("size", [(120, 160), (700, 900)])
def test_the_part_is_found_and_nothing_beside_it(form, dtype, channels, size):
    image, truth = scene(form, dtype, channels, size)
    found = foreground(image)
    assert not (found.mask & ~truth).any()
    assert found.mask.sum() > 0.75 * truth.sum()
    assert found.contrast > 5
    assert found.share == pytest.approx(truth.mean(), rel=0.1)


def test_a_dark_part_before_a_light_background():
    image, truth = scene("disc")
    found = foreground(255 - image)
    assert not (found.mask & ~truth).any()
    assert found.mask.sum() > 0.75 * truth.sum()


def test_transparency_decides():
    image = np.full((20, 30, 4), 200, np.uint8)
    image[..., 3] = 0
    image[5:9, 6:20, 3] = 255
    np.testing.assert_array_equal(foreground(image).mask, image[..., 3] > 0)
    image[..., 3] = 0
    with pytest.raises(InputError, match="all of it is transparent"):
        foreground(image)


def surface(defect_type):
    rng = np.random.default_rng(0)
    if defect_type == "flat":
        return np.full((200, 200, 1), 90, np.uint8)
    grain = rng.normal(120, 20, (200, 200, 1))
    if defect_type == "patches":
        grain += 60 * (cv2.GaussianBlur(rng.normal(size=(200, 200)), (0, 0), 15) > 0)[..., None]
    return grain.clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("defect_type", ["flat", "grain", "patches"])
def test_a_surface_that_fills_the_image_is_refused(defect_type):
    with pytest.raises(InputError):
        foreground(surface(defect_type))


def test_a_part_that_fades_into_the_background_is_refused():
    y, x = np.mgrid[:200, :200]
    glow = 60 + 150 * np.exp(-((y - 100) ** 2 + (x - 100) ** 2) / (2 * 40**2))
    with pytest.raises(InputError, match="its edge is vague"):
        foreground(glow.astype(np.uint8)[..., None])


def test_the_source_says_which_image_and_what_to_do():
    with pytest.raises(
        InputError, match=r"a/7.png: cannot tell .* contrast .*--within DIR.*golden"
    ):
        Foreground()("a/7.png", surface("grain"))
    image, _ = scene("disc")
    region = Foreground()("7.png", image)
    assert region.record["from"] == "foreground"
    assert region.record["contrast"] > 5


def test_tiles_that_fill_their_image_are_refused(magnetic_tile):
    paths = sorted((magnetic_tile / "MT_Free" / "Imgs").glob("*.jpg"))[:20]
    for path in paths:
        with pytest.raises(InputError):
            foreground(read_image(path))


def test_a_folder_and_a_file_of_regions(tmp_path):
    image = np.zeros((10, 12, 3), np.uint8)
    mask = np.zeros((10, 12), np.uint8)
    mask[2:5, 3:9] = 255
    save(tmp_path / "a" / "7.png", mask)
    region = RegionFolder(tmp_path)("a/7.jpg", image)
    np.testing.assert_array_equal(region.mask, mask > 0)
    assert region.record["file"] == "a/7.png"
    with pytest.raises(InputError, match=r"8.jpg: no mask"):
        RegionFolder(tmp_path)("a/8.jpg", image)
    one = RegionFile(tmp_path / "a" / "7.png")
    np.testing.assert_array_equal(one("x", image).mask, mask > 0)
    with pytest.raises(InputError, match="the mask is 12x10, its image 11x10"):
        one("x", image[:, :11])
    with pytest.raises(InputError, match="no such region"):
        RegionFile(tmp_path / "none.png")
    assert Everywhere()("x", image).mask.all()


def test_shrunk():
    mask = np.ones((9, 9), bool)
    mask[4, 4] = False
    expected = np.ones((9, 9), bool)
    expected[2:7, 2:7] = False
    np.testing.assert_array_equal(shrunk(mask, 2), expected)
