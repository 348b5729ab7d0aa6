"""Shapes around those of a few examples: their sizes, no two alike, from a file that is checked."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from support.outputs import records, save

from defectrt.errors import EngineError, UsageError
from defectrt.images.reading import read_image
from defectrt.masks.bank import read_bank
from defectrt.masks.examples import (
    SHAPES_FILE,
    ExampleRegions,
    Examples,
    ExampleShapes,
    read_examples,
    warp,
    write_examples,
)
from defectrt.masks.pieces import tight
from defectrt.masks.places import Places
from defectrt.synthesis.job import synthesize


def disc(radius=6):
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return np.hypot(y, x) <= radius


def bar(length=40, width=3):
    return np.ones((width, length), bool)


#: Places without a limit.
ANY = Places(low=0.0, high=1e3, at_frame=True)


def examples(*masks):
    return Examples.of(masks, [0.5], directed=False, places=ANY, instances=[1])


def drawn(shapes, count=200, seed=0):
    rng = np.random.default_rng(seed)
    return [shapes(rng, (300, 300))(1.0)[0] for _ in range(count)]


def test_no_two_are_alike_and_all_are_near_the_examples_in_size():
    own = [disc(5), disc(9)]
    made = drawn(ExampleShapes(own, directed=False))
    assert len({shape.tobytes() + bytes(shape.shape) for shape in made}) == len(made)
    areas = np.array([shape.sum() for shape in made])
    low, high = (example.sum() for example in own)
    assert 0.4 * low < areas.min() < 0.7 * low
    assert 1.4 * high < areas.max() < 2.5 * high
    assert all(shape.any(axis=0).all() or shape.any(axis=1).all() for shape in made)


@pytest.mark.parametrize(("directed", "low", "high"), [(True, 0, 15), (False, 30, 60)])
def test_a_directed_surface_keeps_its_direction(directed, low, high):
    angles = []
    for shape in drawn(ExampleShapes([bar()], directed=directed)):
        if shape.sum() < 200:  # two bars in one have no direction
            y, x = np.nonzero(shape)
            vx, vy, *_ = cv2.fitLine(np.stack([x, y], 1).astype(np.float32), 2, 0, 0.01, 0.01)
            angles.append(abs(np.degrees(np.arctan2(vy, vx)).item() + 90) % 180 - 90)
    assert low <= np.median(np.abs(angles)) <= high


def test_the_seed_in_the_record_makes_the_shape_again():
    shapes = ExampleShapes([disc(), bar()], directed=False)
    shape, record = shapes(np.random.default_rng(3), (300, 300))(0.85)
    again = shapes._draw(np.random.default_rng(record["shape_seed"]), record["scale"])
    np.testing.assert_array_equal(shape, again)


def crack():
    """One px thin and slanted."""
    mask = np.zeros((30, 40), bool)
    mask[np.arange(30), np.arange(30) + np.arange(30) // 4] = True
    return tight(mask)


@pytest.mark.parametrize("shape", [disc(), bar(), crack(), np.ones((1, 1), bool)])
def test_a_warped_shape_has_its_area_to_the_px(shape):
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(warp(shape), shape)
    np.testing.assert_array_equal(warp(shape, 180), np.rot90(shape, 2))
    for angle, scale in rng.uniform((0, 0.6), (360, 1.7), (30, 2)):
        made = warp(shape, angle, scale, bend=0.15, rng=rng)
        assert made.sum() == max(1, round(scale**2 * shape.sum()))


@pytest.mark.parametrize("shape", [bar(60, 2), crack()])
def test_what_is_thin_stays_thin(shape):
    def width(mask):
        far = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 5)
        return 2 * far.max() - 1

    rng = np.random.default_rng(1)
    made = [warp(shape, angle, bend=0.15, rng=rng) for angle in rng.uniform(0, 360, 40)]
    assert np.median([width(mask) for mask in made]) <= width(shape) + 1.2
    assert np.median([max(mask.shape) for mask in made]) >= 0.7 * max(shape.shape)


def test_bending_changes_outlines():
    rng = np.random.default_rng(0)
    made = {warp(disc(), bend=0.15, rng=rng).tobytes() for _ in range(20)}
    assert len(made) == 20


def test_the_file_keeps_the_masks(tmp_path):
    mask = np.zeros((9, 20), bool)
    mask[2:5, 3:17] = True
    mask[3, 8] = False
    line = Examples.of([bar()], [0.5], directed=True, places=ANY, instances=[1])
    write_examples(tmp_path, {"pit": examples(mask, disc()), "line": line})
    read = read_examples(tmp_path)
    assert (read["line"], read["pit"].directed) == (line, False)
    np.testing.assert_array_equal(read["pit"].masks()[0], tight(mask))
    np.testing.assert_array_equal(read["pit"].masks()[1], disc())
    assert read.keys() == {"pit", "line"}
    assert read_examples(tmp_path / "elsewhere") == {}


GOOD = {"height": 2, "width": 3, "bits": "/A=="}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"bits": "AA=="}, "an empty mask"),
        ({"bits": "//8="}, "2 bytes for 2x3 bits"),
        ({"bits": "%"}, "not base64"),
        ({"height": 0}, "greater than or equal to 1"),
        ({"height": 5000}, "less than or equal to 4096"),
        ({"more": 1}, "Extra inputs"),
    ],
)
def test_a_file_that_is_not_what_it_should_be(tmp_path, change, said):
    rest = {"strengths": [0.5], "directed": False, "places": ANY.model_dump(), "instances": [1]}
    pit = {"shapes": [GOOD | change], **rest}
    text = json.dumps({"pit": pit})
    (tmp_path / SHAPES_FILE).write_text(text)
    with pytest.raises(EngineError, match=rf"not the shapes of examples: .*{said}"):
        read_examples(tmp_path)
    (tmp_path / SHAPES_FILE).write_text(text.replace(json.dumps(GOOD | change), json.dumps(GOOD)))
    assert read_examples(tmp_path).keys() == {"pit"}


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    (tmp_path / SHAPES_FILE).write_bytes(b" " * ((16 << 20) + 1))
    with pytest.raises(EngineError, match="larger than 16384 KiB"):
        read_examples(tmp_path)


def test_an_engine_that_has_examples_draws_its_masks_from_them(parts, fake_engine, tmp_path):
    directory, engine = fake_engine
    name = engine.manifest.defect_types[0]
    write_examples(directory, {name: examples(disc(4))})
    options = {"engine": directory, "defect": name, "quiet": True}
    synthesize(parts[0], tmp_path / "a", **options)
    assert {r["masks"][0]["from"] for r in records(tmp_path / "a")} == {"examples"}
    synthesize(parts[0], tmp_path / "b", shape="blob", **options)
    assert {r["masks"][0]["from"] for r in records(tmp_path / "b")} == {"drawn"}


@pytest.fixture
def whole(fake_engine, tmp_path):
    """Give an engine that sees images whole the masks that it learned from; some images for it."""
    directory, engine = fake_engine
    engine.manifest = engine.manifest.model_copy(update={"magnify": "fit"})
    for i in range(3):
        save(tmp_path / "good" / f"{i}.png", np.full((60, 80, 3), 153, np.uint8))

    def learned(*masks):
        own = Examples.of(masks, [], directed=False, places=ANY, instances=[1], whole=True)
        write_examples(directory, {"spot": own})
        return tmp_path / "good", {"engine": directory, "quiet": True}

    return learned


def box(*parts, size=(60, 80)):
    mask = np.zeros(size, bool)
    for part in parts:
        mask[part] = True
    return mask


def test_regions_stay_where_they_are_in_images_of_any_size(tmp_path):
    own = box(np.s_[10:20, 40:80], np.s_[40:44, :10])
    write_examples(
        tmp_path,
        {"a": Examples.of([own], [], directed=False, places=ANY, instances=[1], whole=True)},
    )
    (read,) = read_examples(tmp_path)["a"].masks()
    np.testing.assert_array_equal(read, own)
    shapes = ExampleRegions([read])
    for scale in (1, 2, 3):
        made, record = shapes(np.random.default_rng(0), (60 * scale, 80 * scale))(1.0)
        np.testing.assert_array_equal(made, own.repeat(scale, 0).repeat(scale, 1))
        assert record == {"from": "examples", "example": 0}
    made, _ = shapes(np.random.default_rng(0), (30, 40))(0.5)
    np.testing.assert_array_equal(made, own[::2, ::2])


def test_a_large_region_is_kept_as_finely_as_any_model_sees_it():
    own = box(np.s_[1000, 2000], size=(1500, 4096))
    (mask,) = Examples.of([own], [], directed=False, places=ANY, instances=[1], whole=True).masks()
    assert mask.shape == (188, 512)
    assert list(zip(*np.nonzero(mask), strict=True)) == [(125, 250)]


#: One region in two places, and another.
TWO, ONE = box(np.s_[4:10, 4:12], np.s_[46:56, 60:74]), box(np.s_[40:50, 20:30])


def test_an_engine_that_sees_whole_images_paints_one_region_at_once(whole, tmp_path):
    images, options = whole(TWO, ONE)
    synthesize(images, tmp_path / "a", count=4, **options)
    made = records(tmp_path / "a")
    assert len(made) == 12
    assert {r["masks"][0]["example"] for r in made} == {0, 1}
    for record in made:
        (mask,) = record["masks"]
        (tile,) = record["tiles"]
        assert tile["window"] == {"y": -10, "x": 0, "side": 80}
        asked = read_image(tmp_path / "a" / record["mask"])[..., 0] > 0
        np.testing.assert_array_equal(asked, (TWO, ONE)[mask["example"]])


def test_masks_of_a_folder_stay_one_instance_in_whole_images(whole, fake, tmp_path):
    images, options = whole(TWO)
    for i in range(3):
        save(tmp_path / "masks" / f"{i}.png", np.uint8(255) * TWO)
    options |= {"masks": tmp_path / "masks"}
    synthesize(images, tmp_path / "whole", **options)
    assert {len(r["masks"]) for r in records(tmp_path / "whole")} == {1}
    fake.manifest = fake.manifest.model_copy(update={"magnify": 1})
    synthesize(images, tmp_path / "crops", **options)
    assert {len(r["masks"]) for r in records(tmp_path / "crops")} == {2}


def test_a_bank_for_whole_images_keeps_its_masks_in_one_piece(tmp_path):
    save(tmp_path / "a.png", np.uint8(255) * TWO)
    assert len(read_bank(tmp_path, 16)) == 2
    (entry,) = read_bank(tmp_path, None)
    np.testing.assert_array_equal(entry.shape, tight(TWO))


def test_regions_lie_within_what_is_legal_and_have_no_size(whole, tmp_path):
    images, options = whole(TWO, ONE)
    save(tmp_path / "legal.png", np.uint8(255) * box(np.s_[30:, :40]))
    synthesize(images, tmp_path / "a", within=tmp_path / "legal.png", count=3, **options)
    assert {r["masks"][0]["example"] for r in records(tmp_path / "a")} == {1}
    with pytest.raises(UsageError, match="size: masks of this engine are regions"):
        synthesize(images, tmp_path / "b", size=(7, 12), **options)
    synthesize(images, tmp_path / "c", shape="blob", size=(7, 12), **options)
    assert {r["masks"][0]["from"] for r in records(tmp_path / "c")} == {"drawn"}


@pytest.mark.parametrize("source", ["drawn", "bank", "examples"])
def test_a_size_holds_for_every_source_of_shapes(parts, fake_engine, tmp_path, source):
    directory, engine = fake_engine
    name = engine.manifest.defect_types[0]
    more = {"mask_bank": parts[1]} if source == "bank" else {}
    if source == "examples":
        write_examples(directory, {name: examples(disc(9))})
    options = {"engine": directory, "defect": name, "quiet": True, "count": 4} | more
    synthesize(parts[0], tmp_path / "out", size=(7, 12), **options)
    for record in records(tmp_path / "out"):
        (mask,) = record["masks"]
        assert mask["from"] == source
        assert 7 * 0.85**5 <= mask["longest"] <= 12
        drawn = cv2.imread(str(tmp_path / "out" / record["mask"]), 0) > 0
        assert abs(max(tight(drawn).shape) - mask["longest"]) <= 2


def test_sizes_that_are_not_possible(parts, fake_engine, tmp_path):
    for size, said in (((9, 3), "from low to high"), ((0, 3), "1 to 4096")):
        with pytest.raises(UsageError, match=said):
            synthesize(parts[0], tmp_path / "out", engine=fake_engine[0], size=size)
    with pytest.raises(UsageError, match="size: a folder of masks decides"):
        synthesize(parts[0], tmp_path / "out", engine=fake_engine[0], masks=parts[1], size=(3, 9))
