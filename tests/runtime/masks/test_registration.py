"""A golden image is found again where it is, within a pixel, and refused where it is not."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from support.outputs import save

from defectrt.errors import InputError
from defectrt.images.reading import read_image
from defectrt.masks.registration import Golden, carry, register

#: Images are found in others by the dozen.
pytestmark = pytest.mark.slow

CORNERS = np.array([[125, 95, 1], [515, 95, 1], [515, 385, 1], [125, 385, 1]], float)


def part(seed=0, h=480, w=640):
    """A printed plate with holes, [H,W] levels."""
    rng, image = np.random.default_rng(seed), np.full((h, w), 40, np.uint8)
    cv2.rectangle(image, (120, 90), (520, 390), 150, -1)
    for _ in range(9):
        centre = int(rng.integers(150, 490)), int(rng.integers(120, 360))
        cv2.circle(image, centre, int(rng.integers(8, 30)), int(rng.integers(30, 230)), -1)
    cv2.putText(image, f"AB{seed}", (200, 250), 0, 2, 60, 4)
    return image.astype(float)


def moved(image, angle=0.0, dx=0.0, dy=0.0, zoom=1.0):
    h, w = image.shape
    matrix = cv2.getRotationMatrix2D((w / 2, h / 2), angle, zoom)
    matrix[:, 2] += dx, dy
    return cv2.warpAffine(image, matrix, (w, h), borderMode=cv2.BORDER_REFLECT), matrix


def photo(image, gain=1.0, offset=0.0, noise=4.0, seed=0):
    noisy = image * gain + offset + np.random.default_rng(seed).normal(0, noise, image.shape)
    return noisy.clip(0, 255).astype(np.uint8)[..., None]


@pytest.mark.parametrize(
    ("how", "light"),
    [
        ({}, {}),
        ({"angle": 3, "dx": 10, "dy": -8}, {}),
        ({"dx": 60, "dy": 40}, {"gain": 0.6, "offset": 30}),
        ({"angle": 45, "dx": 5}, {"gain": 1.2, "offset": -10}),
        ({"angle": 180}, {}),
        ({"angle": 10, "dx": -30, "zoom": 0.8}, {"gain": 0.8, "offset": 10}),
        ({"angle": 0.5, "dx": 2}, {"gain": 0.4, "noise": 2}),
        ({"angle": 5, "dx": 200}, {}),  # half of it is out of view
    ],
    ids=str,
)
def test_the_part_is_found_again_within_a_pixel(how, light):
    image, matrix = moved(part(), **how)
    found = register(photo(part()), photo(image, **light, seed=1))
    assert np.abs(CORNERS @ found.matrix.T - CORNERS @ matrix.T).max() < 1
    assert found.confidence > 0.9


def test_large_images_of_another_size_and_depth():
    large = cv2.resize(part(), (1900, 1425), interpolation=cv2.INTER_AREA)
    image, matrix = moved(large, 8, 60, -40)
    shifted = photo(image, seed=1).astype(np.uint16) * 257
    found = register(photo(part()), shifted)
    zoom = 1900 / 640
    scaled = np.array([[zoom, 0, zoom / 2 - 0.5], [0, zoom, zoom / 2 - 0.5], [0, 0, 1]])
    assert np.abs(CORNERS @ found.matrix.T - CORNERS @ (matrix @ scaled).T).max() < 4


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_another_part_of_the_same_outline_is_refused(seed):
    with pytest.raises(InputError, match=r"\d\d% of the golden image is found again"):
        register(photo(part()), photo(part(seed)))


def surface(kind):
    y, x = np.mgrid[:300, :400]
    rng = np.random.default_rng(0)
    return {
        "noise": rng.normal(128, 40, (300, 400)),
        "blank": np.full((300, 400), 128.0),
        "stripes": 128 + 80 * np.sin(x / 5),
        "weave": 128 + 80 * np.sin(x / 5) * np.sin(y / 5),
        "gradient": x / 2.0 + y / 4,
    }[kind]


@pytest.mark.parametrize("kind", ["noise", "blank", "gradient"])
def test_images_that_do_not_match_are_refused(kind):
    for golden, image in [(part(), surface(kind)), (surface(kind), part())]:
        with pytest.raises(InputError):
            register(photo(golden), photo(image, seed=1))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("stripes", "fits elsewhere too"),
        ("weave", "fits elsewhere too"),
        ("blank", "hardly any contrast"),
    ],
)
def test_what_cannot_be_told_is_refused_even_if_it_is_the_same(kind, reason):
    with pytest.raises(InputError, match=reason):
        register(photo(surface(kind)), photo(surface(kind), seed=1))


def test_tiles_are_found_in_themselves_moved_and_in_no_other(magnetic_tile):
    paths = sorted((magnetic_tile / "MT_Free" / "Imgs").glob("*.jpg"))[:40:10]
    tiles = [read_image(path) for path in paths]
    for i, tile in enumerate(tiles):
        image, matrix = moved(tile[..., 0].astype(float), 4, 6, -9)
        found = register(tile, photo(image, 0.8, 10, 2))
        corners = np.array([[x, y, 1] for y in (0, tile.shape[0]) for x in (0, tile.shape[1])])
        assert np.abs(corners @ found.matrix.T - corners @ matrix.T).max() < 1
        with pytest.raises(InputError):
            register(tile, tiles[i - 1])


def test_regions_are_carried_and_what_is_forbidden_stays_so(tmp_path):
    legal, forbidden = np.zeros((480, 640), np.uint8), np.zeros((480, 640), np.uint8)
    legal[100:380, 130:510] = 255
    cv2.circle(forbidden, (300, 230), 60, 255, -1)
    save(tmp_path / "golden.png", photo(part())[..., 0])
    save(tmp_path / "legal.png", legal)
    save(tmp_path / "forbidden.png", forbidden)
    golden = Golden(*(tmp_path / f"{name}.png" for name in ("golden", "legal", "forbidden")))
    for angle, dx, dy in [(0, 0, 0), (7, 30, -20), (-30, 5, 8)]:
        image, matrix = moved(part(), angle, dx, dy)
        region = golden("7.png", photo(image, seed=2))
        truth = ((legal > 0) & (forbidden == 0)).astype(np.uint8)
        truth = cv2.warpAffine(truth, matrix, (640, 480), flags=cv2.INTER_NEAREST) > 0
        assert not (region.mask & ~truth).any()
        assert region.mask.sum() > 0.9 * truth.sum()
        assert region.record["confidence"] > 0.9
    with pytest.raises(InputError, match=r"8.png: cannot be aligned: \d+% of the golden"):
        golden("8.png", photo(part(3)))
    assert set(golden.record()) == {"from", "golden", "legal", "forbidden", "min_confidence"}


def test_regions_that_leave_nothing_or_have_another_size(tmp_path):
    save(tmp_path / "golden.png", photo(part())[..., 0])
    save(tmp_path / "all.png", np.full((480, 640), 255, np.uint8))
    save(tmp_path / "small.png", np.full((48, 64), 255, np.uint8))
    golden, everything = tmp_path / "golden.png", tmp_path / "all.png"
    with pytest.raises(InputError, match="all that is legal is forbidden too"):
        Golden(golden, everything, everything)
    with pytest.raises(InputError, match=r"small.png: the mask is 64x48, its image 640x480"):
        Golden(golden, tmp_path / "small.png")


def test_carry_moves_pixels_as_the_matrix_says():
    mask = np.zeros((20, 30), bool)
    mask[5:8, 6:9] = True
    alignment = type("A", (), {"matrix": np.array([[1.0, 0, 4], [0, 1, 2]])})
    carried = carry(mask, alignment, (25, 35))
    assert carried.shape == (25, 35)
    np.testing.assert_array_equal(carried[2:22, 4:34], mask)
    assert carried.sum() == mask.sum()
