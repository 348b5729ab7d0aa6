"""Places: learned from few examples, found again in good images."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError
from support.outputs import records

from defectrt.masks.examples import Examples, write_examples
from defectrt.masks.places import LikeExamples, Places, level, look
from defectrt.synthesis.job import synthesize


def part(height=80, width=100, edge=20):
    """A bright workpiece [H,W,3] with a dark rim on its left."""
    image = np.full((height, width, 3), 160, np.uint8)
    image[:, :edge] = 40
    return image


def at(y, x, size=8, shape=(80, 100)):
    mask = np.zeros(shape, bool)
    mask[y : y + size, x : x + size] = True
    return mask


def with_defect(mask, image=None):
    image = part() if image is None else image
    image[mask] = 10
    return image


def test_the_level_is_that_of_the_surface_and_not_of_the_defect():
    mask = at(40, 60)
    around = np.zeros_like(mask)
    around[36:52, 56:72] = True
    np.testing.assert_allclose(level(with_defect(mask), around)[mask], 1, atol=0.02)
    assert level(with_defect(mask))[mask].mean() < 0.8


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_every_kind_of_image_has_a_level(dtype, channels):
    image = np.full((30, 40, channels), 100, dtype)
    np.testing.assert_allclose(level(image), 1, atol=1e-3)


def test_a_rim_without_examples_gets_no_defect():
    places = look([(with_defect(at(40, 60)), at(40, 60)), (with_defect(at(8, 40)), at(8, 40))])
    region = LikeExamples(places)("a.png", part())
    assert not region.mask[:, :18].any()
    assert region.mask[1:-1, 26:-1].all()
    assert region.record == {"from": "examples"}


def test_a_rim_with_an_example_gets_some():
    places = look([(with_defect(at(40, 60)), at(40, 60)), (with_defect(at(40, 4)), at(40, 4))])
    assert LikeExamples(places)("a.png", part()).mask[1:-1, 1:-1].all()


@pytest.mark.parametrize("size", [30, 60])
def test_a_large_defect_says_what_a_small_one_does(size):
    image, mask = np.full((160, 160, 1), 150, np.uint8), at(50, 50, size, (160, 160))
    places = look([(with_defect(mask, image), mask)])
    assert (places.low, places.high) == (pytest.approx(0.9, abs=0.05), pytest.approx(1.1, abs=0.05))


def test_a_defect_that_fills_its_image_says_nothing():
    mask = np.ones((80, 100), bool)
    region = LikeExamples(look([(with_defect(mask), mask)]))("a.png", part())
    assert region.mask.all()


@pytest.mark.parametrize(("corner", "at_frame"), [((40, 92), True), ((40, 91), False)])
def test_the_frame_is_touched_only_if_an_example_does(corner, at_frame):
    mask = at(*corner)
    places = look([(with_defect(mask), mask)])
    region = LikeExamples(places)("a.png", part()).mask
    assert places.at_frame is at_frame
    assert region[:, -1].any() == at_frame
    assert region[1:-1, -2].all()


def test_a_range_goes_up():
    with pytest.raises(ValidationError, match="low is more than high"):
        Places(low=1.0, high=0.5, at_frame=False)


@pytest.mark.parametrize("within", [None, "anywhere"])
def test_masks_lie_where_the_examples_do_unless_anywhere_is_asked_for(
    parts, fake_engine, tmp_path, within
):
    directory, engine = fake_engine
    name = engine.manifest.defect_types[0]
    nowhere = Places(low=1e2, high=1e3, at_frame=False)
    disc = np.ones((5, 5), bool)
    told = Examples.of([disc], [0.5], directed=False, places=nowhere, instances=[1])
    write_examples(directory, {name: told})
    options = {"engine": directory, "defect": name, "quiet": True}
    summary = synthesize(parts[0], tmp_path / "out", within=within, **options)
    assert (summary.kept == 0) == (within is None)
    assert all("within" not in record["masks"][0] for record in records(tmp_path / "out"))
