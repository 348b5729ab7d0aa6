"""What is found in a handful of defects, and what a quality engineer is warned of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from defectrt.training.data.samples import GOOD, Sample
from defectrt.training.data.survey import examples_of, survey


def surface(seed=0, side=128):
    rng = np.random.default_rng(seed)
    return rng.normal(150, 6, (side, side, 1)).clip(0, 255).astype(np.uint8)


def stripes(seed=0):
    rows = np.random.default_rng(seed).normal(150, 10, (128, 1, 1))
    return np.repeat(rows, 128, axis=1).clip(0, 255).astype(np.uint8)


def spot(name="pit", seed=0, height=8, width=8, dark=60):
    image, mask = surface(seed), np.zeros((128, 128), bool)
    mask[40 : 40 + height, 30 : 30 + width] = True
    image[mask] = dark
    return Sample(Path(f"{seed}.png"), name, image, mask)


def twelve_bits(sample):
    return replace(sample, image=sample.image.astype(np.uint16) * 16)


def good(image):
    return Sample(Path("good.png"), GOOD, image, np.zeros(image.shape[:2], bool))


def test_sizes_and_strength_are_those_that_were_drawn():
    samples = [spot(seed=i, height=9, width=21, dark=75) for i in range(5)]
    found = survey([*samples, good(surface(9))], 96, 4)
    pit = found.defect_types["pit"]
    assert (pit.images, pit.instances, pit.longest, pit.area) == (5, 5, 21, 9 * 21)
    assert pit.width == pytest.approx(9, abs=1)
    assert pit.strength == pytest.approx(0.5, abs=0.02)
    assert (found.good, found.directed, found.warnings) == (1, False, ())


@pytest.mark.parametrize(("height", "magnify"), [(9, 1), (3, 1), (2, 2), (1, 4)])
def test_fine_defects_are_enlarged_by_what_they_show_not_by_their_masks(height, magnify):
    def line(seed):
        sample = spot(seed=seed, height=height, width=16)
        mask = sample.mask.copy()
        mask[38 : 42 + height, 28:48] = True
        return Sample(sample.path, sample.defect_type, sample.image, mask)

    found = survey([*map(line, range(5)), good(surface(9))], 96, 4)
    assert found.defect_types["pit"].thickness == pytest.approx(height, abs=0.6)
    assert found.magnify == magnify
    assert survey([*map(line, range(5)), good(surface(9))], 96, 2).magnify == min(2, magnify)


def test_images_are_seen_whole_if_nothing_less_shows_a_defect_and_it_can_be_seen_in_them():
    """98 px are more than twice 48; 9 px of 128 in a window of 48 are 3.4, 4 px are 1.5."""
    large = survey([*(spot(seed=i, height=9, width=98) for i in range(5)), good(surface(9))], 48, 2)
    assert (large.magnify, large.seen, large.warnings) == ("fit", 128, ())
    assert large.why == "pit: too large for any part that is seen at once"
    thin = survey([*(spot(seed=i, height=4, width=98) for i in range(5)), good(surface(9))], 48, 2)
    assert (thin.magnify, thin.seen) == (1, 48)
    small = survey([*(spot(seed=i, height=9, width=90) for i in range(5)), good(surface(9))], 48, 2)
    assert small.magnify == 1


def test_images_of_logical_anomalies_are_seen_whole():
    """Whatever their size; masks are regions, which look alike, and what is too fine is said."""
    samples = [spot(n, seed=i) for n in ("extra", "missing") for i in range(5)]
    found = survey([*samples, good(surface(9))], 96, 4, logical=True)
    assert (found.magnify, found.seen, found.warnings) == ("fit", 128, ())
    fine = [spot(seed=i, height=3, width=20) for i in range(5)]
    (said,) = survey([*fine, good(surface(9))], 96, 4, logical=True).warnings
    assert "3.0 px thin and will come out softer than they are; they are seen smaller" in said


def test_the_examples_of_whole_images_stay_in_their_places_in_one_piece():
    one, two = spot(seed=0), spot(seed=1)
    two.mask[100:108, 100:108] = True
    found = survey([one, two, good(surface(99))], 96, 4, logical=True)
    examples = examples_of([one, two], found)
    assert (examples.whole, examples.instances, examples.strengths) == (True, [1, 1], [])
    for sample, mask in zip((one, two), examples.masks(), strict=True):
        np.testing.assert_array_equal(mask, sample.mask)


def test_a_surface_with_a_direction():
    samples = [spot(seed=i) for i in range(5)]
    assert survey([*samples, good(stripes())], 96, 4).directed


def lines(angles):
    samples = []
    for i, angle in enumerate(angles):
        image, mask = surface(i), np.zeros((128, 128), np.uint8)
        dx, dy = 25 * np.cos(np.radians(angle)), 25 * np.sin(np.radians(angle))
        cv2.line(mask, (int(64 - dx), int(64 - dy)), (int(64 + dx), int(64 + dy)), 1, 3)
        image[mask > 0] = 60
        samples.append(Sample(Path(f"{i}.png"), "line", image, mask > 0))
    return samples


@pytest.mark.parametrize(
    ("samples", "directed"),
    [
        (lines([80, 85, 91, 99, 100]), True),
        (lines([175, 178, 1, 5, 8]), True),  # an axis has no end: 175 degrees are near 5
        (lines([0, 40, 80, 120, 160]), False),
        (lines([90, 91, 92]), False),  # too few to tell
        ([spot(seed=i) for i in range(6)], False),  # nothing is long
    ],
)
def test_shapes_are_not_turned_if_the_examples_run_one_way(samples, directed):
    found = survey([*samples, good(surface(99))], 96, 4)
    assert not found.directed
    examples = examples_of(samples, found)
    assert examples.directed is directed
    assert len(examples.masks()) == len(samples)


def test_the_examples_say_how_many_there_are_in_a_picture():
    one, two = spot(seed=0), spot(seed=1)
    two.mask[90:98, 90:98] = True
    samples = [one, two, spot(seed=2)]
    examples = examples_of(samples, survey([*samples, good(surface(99))], 96, 4))
    assert (examples.instances, len(examples.masks())) == ([1, 2, 1], 4)


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        ([spot(seed=i, height=100, width=100) for i in range(5)], "covers more than half"),
        ([spot(seed=i, height=1, width=20) for i in range(5)], "1.0 px thin and will come out"),
        ([spot(seed=i, height=4, width=98) for i in range(5)], "98 px long"),
        ([spot(seed=i) for i in range(4)], "4 examples; 5 to 10"),
        ([spot(seed=0) for _ in range(5)], "the same picture"),
        ([spot(n, seed=i) for n in ("pit", "hole") for i in range(5)], "look the same"),
        ([twelve_bits(spot(seed=i)) for i in range(5)], "5 images have 16 bits and hardly use"),
    ],
)
def test_what_will_not_work_is_said(samples, said):
    window, cell = 48 if "long" in said else 96, 2 if "thin" in said else 4
    warnings = survey([*samples, good(surface(99))], window, cell).warnings
    assert [said in warning for warning in warnings] == [True], warnings
