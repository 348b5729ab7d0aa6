"""Defects like those of examples: their own changes on other backgrounds, without a model."""

from __future__ import annotations

import json
import shutil

import cv2
import numpy as np
import pytest
from support.outputs import records, save

from defectrt import Synthesizer
from defectrt.errors import InputError, UsageError
from defectrt.images.reading import read_image
from defectrt.synthesis.job import synthesize
from defectrt.synthesis.transplant import Donor, DonorShapes, read_donors


def surface(seed, level=150, side=80, channels=1):
    grain = np.random.default_rng(seed).normal(level, 4, (side, side, channels))
    return grain.clip(0, 255).astype(np.uint8)


def with_spot(seed=0, ratio=0.5, radius=7):
    """A spot that takes half of the brightness."""
    image, mask = surface(seed).astype(float), np.zeros((80, 80), np.uint8)
    cv2.circle(mask, (42, 38), radius, 1, -1)
    image[mask > 0] *= ratio
    return image.round().astype(np.uint8), mask * 255


@pytest.fixture
def examples(tmp_path):
    image, mask = with_spot()
    save(tmp_path / "like" / "spot" / "a.png", image[..., 0])
    save(tmp_path / "like" / "spot" / "a_mask.png", mask)
    return tmp_path / "like"


@pytest.fixture
def good(tmp_path):
    for i, level in enumerate((150, 60, 230)):
        save(tmp_path / "good" / f"{i}.png", surface(10 + i, level)[..., 0])
    return tmp_path / "good"


def test_the_change_is_a_ratio_and_ends_near_the_mask(examples):
    ((donor,), own) = read_donors(examples)["spot"]
    assert donor.mask.sum() == (with_spot()[1] > 0).sum()
    inside = np.pad(donor.mask, 3)
    assert np.exp(donor.change[inside]).mean() == pytest.approx(0.55, abs=0.06)
    assert np.abs(donor.change[[0, -1]]).max() < 0.05
    assert not own.places.at_frame


def test_defects_get_darker_with_their_surface_and_nothing_else_changes(
    examples, good, fake_engine, tmp_path
):
    out = tmp_path / "out"
    synthesize(good, out, engine=fake_engine[0], like=examples, count=3, quiet=True)
    made = records(out)
    assert len(made) == 9
    assert {r["defect"] for r in made} == {"spot"}
    assert fake_engine[1].batches == []  # no model painted
    for r in made:
        before, after = (
            read_image(p).astype(float) for p in (good / r["source"], out / r["image"])
        )
        label = read_image(out / r["label"])[..., 0] > 0
        assert after[label].mean() / before[label].mean() == pytest.approx(0.55, abs=0.12)
        near = cv2.dilate(label.astype(np.uint8), np.ones((9, 9))) > 0
        assert (after[~near] == before[~near]).all()
        assert r["mask_area"] == label.sum()
        assert r["steps"] == 0
    assert len({r["mask_area"] for r in made}) > 4


def test_the_record_makes_the_defect_again(examples):
    donors, own = read_donors(examples)["spot"]
    shapes = DonorShapes(donors, directed=own.directed)
    mask, record = shapes(np.random.default_rng(1), (80, 80))(0.8)
    again, change = shapes.again(json.loads(json.dumps(record)))
    np.testing.assert_array_equal(mask, again)
    assert change.shape == (mask.shape[0] + 6, mask.shape[1] + 6, 3)


@pytest.mark.parametrize("directed", [True, False])
@pytest.mark.parametrize("size", [(6, 6), (3, 200), (8, 400), (100, 100)])
def test_the_change_always_belongs_to_its_mask(size, directed):
    mask = np.ones(size, bool)
    change = np.pad(np.ones((*size, 3), np.float32), ((3, 3), (3, 3), (0, 0)))
    shapes = DonorShapes([Donor(change, mask, "a.png", "", "")], directed=directed)
    for seed in range(40):
        shape, made = shapes.again({"shape_seed": seed, "scale": 1.0, "donor": 0})
        assert made.shape == (shape.shape[0] + 6, shape.shape[1] + 6, 3)
        assert made[3:-3, 3:-3][shape].mean() > 0.7


def test_folders_of_images_and_masks_name_no_type(tmp_path):
    image, mask = with_spot()
    for name in ("crack", "hole"):
        save(tmp_path / "like" / "images" / name / "a.png", image[..., 0])
        save(tmp_path / "like" / "masks" / name / "a.png", mask)
    assert list(read_donors(tmp_path / "like")) == ["crack", "hole"]


def test_a_type_may_be_added_later(examples, good, fake_engine, tmp_path):
    shutil.copytree(examples / "spot", examples / "pit")
    options = {"engine": fake_engine[0], "like": examples, "quiet": True}
    synthesize(good, tmp_path / "out", defect="spot", **options)
    synthesize(good, tmp_path / "out", defect="pit", **options)
    assert {r["defect"] for r in records(tmp_path / "out")} == {"pit", "spot"}


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_kind_of_image_keeps_its_kind(examples, fake_engine, channels, dtype):
    image = surface(3, channels=channels).astype(dtype)
    if dtype == np.uint16:
        image *= 257
    with Synthesizer(engine=fake_engine[0], like=examples) as synthesizer:
        assert synthesizer.defect_types == ["spot"]
        result = synthesizer(image, name="a")
        same = synthesizer(image, name="a")
        other = synthesizer(image, name="a", number=1)
    assert (result.image.dtype, result.image.shape) == (image.dtype, image.shape)
    assert result.label.any()
    assert (result.image != image).any()
    if channels in (2, 4):
        np.testing.assert_array_equal(result.image[..., -1], image[..., -1])
    np.testing.assert_array_equal(result.image[~result.band], image[~result.band])
    np.testing.assert_array_equal(result.image, same.image)
    assert not np.array_equal(result.label, other.label)


def test_a_folder_a_type_and_shares(examples, good, fake_engine, tmp_path):
    shutil.copytree(examples / "spot", examples / "pit")
    options = {"engine": fake_engine[0], "like": examples, "quiet": True, "count": 2}
    synthesize(good, tmp_path / "out", defect="pit=2,spot=1", **options)
    names = [r["defect"] for r in records(tmp_path / "out")]
    assert (names.count("pit"), names.count("spot")) == (4, 2)
    with pytest.raises(UsageError, match=r"'hole'.*makes: pit, spot"):
        synthesize(good, tmp_path / "other", defect="hole", **options)


def test_one_folder_is_one_type_that_is_called_like_it(examples):
    assert list(read_donors(examples / "spot")) == ["spot"]


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.png", with_spot(ratio=0.7)[0][..., 0]), ("a_mask.png", with_spot(radius=5)[1])],
)
def test_examples_that_were_changed_are_another_job(
    examples, good, fake_engine, tmp_path, name, content
):
    options = {"engine": fake_engine[0], "like": examples, "quiet": True}
    synthesize(good, tmp_path / "out", **options)
    save(examples / "spot" / name, content)
    with pytest.raises(InputError, match="started as another job"):
        synthesize(good, tmp_path / "out", **options)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda like: shutil.rmtree(like), "no such folder of examples"),
        (lambda like: (like / "spot" / "a_mask.png").unlink(), "holds no image with a mask"),
        (
            lambda like: save(like / "spot" / "a_mask.png", np.zeros((80, 80), np.uint8)),
            "a_mask.png",
        ),
    ],
)
def test_examples_that_cannot_be_used(examples, good, fake_engine, tmp_path, change, said):
    change(examples)
    with pytest.raises(InputError, match=said):
        synthesize(good, tmp_path / "out", engine=fake_engine[0], like=examples, quiet=True)


def test_what_does_not_go_together(examples, fake_engine):
    with pytest.raises(UsageError, match="shape and like exclude each other"):
        Synthesizer(engine=fake_engine[0], like=examples, shape="blob")
    with pytest.raises(UsageError, match="like keeps the sizes"):
        Synthesizer(engine=fake_engine[0], like=examples, size=(5, 9))
    with pytest.raises(UsageError, match="like has masks of its own"):
        Synthesizer(engine=fake_engine[0], like=examples, mask_source=lambda *_: [])
    with (
        Synthesizer(engine=fake_engine[0], like=examples) as synthesizer,
        pytest.raises(InputError, match="like has masks of its own"),
    ):
        synthesizer(surface(0), with_spot()[1])


@pytest.mark.parametrize("wanted", [0.15, 0.3, 0.75])
def test_a_moved_defect_gets_the_strength_that_is_wanted(examples, fake_engine, wanted):
    part = surface(3)[..., 0]
    with Synthesizer(like=examples, engine=fake_engine[0], strength=(wanted, wanted)) as one:
        made = one(part, name="a")
    assert made.fault is None
    assert made.figures["strength"] == pytest.approx(wanted, abs=0.02)
    np.testing.assert_array_equal(made.image[~made.band], part[~made.band])
