"""The generator: the same seed draws the same, and a defect changes its mask and no more."""

from __future__ import annotations

import numpy as np
import pytest

from defectrt.training.data.samples import read_good, read_pairs
from defectrt.training.surfaces import DEFECT_TYPES, FAMILIES, draw
from defectrt.training.surfaces.light import Light, Surface, shade
from defectrt.training.surfaces.writing import write


@pytest.mark.parametrize("family", FAMILIES)
def test_surfaces_are_images_with_texture_and_repeat(family):
    image, mask = draw(5, family, 96)
    np.testing.assert_array_equal(image, draw(5, family, 96)[0])
    assert not np.array_equal(image, draw(6, family, 96)[0])
    assert image.shape == (96, 96, 3)
    assert image.dtype == np.uint8
    assert not mask.any()
    assert 20 < image.mean() < 235
    assert image.mean(axis=2).std() > 2


@pytest.mark.parametrize("defect_type", DEFECT_TYPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_defect_changes_its_mask_and_no_more(family, defect_type):
    good = draw(7, family, 144)[0].astype(int)
    bad, mask = draw(7, family, 144, defect_type)
    assert 10 < mask.sum() < 0.3 * mask.size
    moved = np.abs(bad.astype(int) - good).max(axis=2)
    assert moved[~mask].max() == 0
    assert np.percentile(moved[mask], 90) > 15


def dented(azimuth, colour=0.5):
    """What a dent in the middle changes of a flat surface, [64,64]; the light comes from x."""
    y, x = np.mgrid[:64, :64].astype(np.float32) - 31.5
    form = np.maximum(14 - np.hypot(y, x), 0).astype(np.float32)
    flat = np.zeros((64, 64), np.float32)
    skin = np.full((64, 64, 3), colour, np.float32)
    surface, light = Surface(flat, skin, flat, np.ones(3, np.float32)), Light(azimuth, 0.9)
    bad = DEFECT_TYPES["dent"](surface, form, light, np.random.default_rng(0))
    return (shade(bad, light) - shade(surface, light))[..., 0]


def test_a_dent_has_one_bright_and_one_dark_side_and_they_follow_the_light():
    """The wall that faces the light is the far one; turn the light, and they change places."""

    def left_minus_right(azimuth):
        change = dented(azimuth)
        return float((change[:, :32] - change[:, :31:-1]).mean())

    assert left_minus_right(0.0) > 0.01
    assert left_minus_right(np.pi) == pytest.approx(-left_minus_right(0.0), abs=1e-4)


@pytest.mark.parametrize("colour", [0.1, 0.3, 0.6])
def test_the_bright_side_of_a_dent_shows_as_well_as_the_dark_one(colour):
    """On dark and on light skin: a dent that is dark all over is taken for a stain."""
    change = dented(0.0, colour)
    assert 0.5 < change.clip(0).sum() / (-change).clip(0).sum() < 4
    assert change.max() > 0.1
    assert change.min() < -0.04


def test_a_scratch_lays_bare_what_lies_below_its_own_surface():
    """On a printed board that is copper, on lacquer bright metal."""
    colours = {}
    for family in ("printed_board", "painted_metal"):
        reds = []
        for seed in range(6):
            rng = np.random.default_rng(seed)
            surface = FAMILIES[family](rng, 96)
            form = np.zeros((96, 96), np.float32)
            form[48, 20:76] = 1
            bare = DEFECT_TYPES["scratch"](surface, form, Light(0.3, 0.9), rng).colour[48, 20:76]
            reds.append(float((bare[:, 0] - bare[:, 2]).mean()))
        colours[family] = np.median(reds)
    assert colours["printed_board"] > 0.2
    assert abs(colours["painted_metal"]) < 0.1


def test_what_it_writes_is_what_training_reads(tmp_path):
    write(tmp_path, count=6, size=64, seed=0, window=48, workers=1)
    assert len(read_good(tmp_path / "good")) == 6
    for defect_type in DEFECT_TYPES:
        samples = read_pairs(tmp_path / defect_type, defect_type)
        assert len(samples) == 6
        assert all(sample.image.shape == (64, 64, 3) for sample in samples)


@pytest.mark.slow
def test_several_processes_draw_the_same_bytes(tmp_path):
    for workers in (1, 2):
        write(tmp_path / str(workers), count=3, size=64, seed=0, window=48, workers=workers)
    one, two = (
        {p.relative_to(root): p.read_bytes() for p in root.rglob("*.png")}
        for root in (tmp_path / "1", tmp_path / "2")
    )
    assert one == two
    assert len(one) == 3 * (1 + 2 * len(DEFECT_TYPES))


def groove(azimuth):
    """A scratch from left to right, without its bare core, under light from ``azimuth``."""
    flat, form = np.zeros((64, 64), np.float32), np.zeros((64, 64), np.float32)
    form[29:36, 8:56] = np.array([0.25, 0.5, 0.75, 1, 0.75, 0.5, 0.25], np.float32)[:, None]
    grey = np.full((64, 64, 3), 0.5, np.float32)
    surface = Surface(flat, grey, flat, np.full(3, 0.35, np.float32))
    light = Light(azimuth, 0.9)
    return shade(DEFECT_TYPES["scratch"](surface, form, light, np.random.default_rng(0)), light)


def test_a_scratch_catches_the_light_that_crosses_it():
    """Its two walls differ under light from across, and look alike under light along it."""

    def walls(lit):
        return abs(float((lit[29:32, 16:48] - lit[33:36, 16:48]).mean()))

    assert walls(groove(np.pi / 2)) > 5 * walls(groove(0.0))
    assert walls(groove(np.pi / 2)) > 0.05


def test_a_stain_soaks_into_the_hollows():
    """Along the grain it is darker in the grooves than on the ridges between them."""
    height = np.tile(np.where(np.arange(64) // 4 % 2, 0.8, -0.8).astype(np.float32), (64, 1))
    even, form = np.zeros((64, 64), np.float32), np.full((64, 64), 12, np.float32)
    surface = Surface(height, np.full((64, 64, 3), 0.6, np.float32), even, np.ones(3, np.float32))
    differences = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        dyed = DEFECT_TYPES["stain"](surface, form, Light(0.0, 0.9), rng).colour.mean(axis=2)
        differences.append(float(dyed[8:56, 8:56][height[8:56, 8:56] > 0].mean()))
        differences[-1] -= float(dyed[8:56, 8:56][height[8:56, 8:56] < 0].mean())
    assert np.median(differences) > 0.02
