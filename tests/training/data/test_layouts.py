"""Layouts: each is recognised, read by its own rule, and what is ambiguous is not guessed."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from support.datasets import (
    SIZE,
    folders,
    folders_of_defect_types,
    image,
    loco,
    mask,
    mvtec,
    pairs,
    visa,
    write,
)

from defectrt.errors import InputError
from defectrt.masks.reading import MaskValues, smeared, unsmeared
from defectrt.training.data.dataset import read_dataset
from defectrt.training.data.layouts import GOOD

AREA = 48  # of one mask


def defect_types(samples):
    return dict(Counter(sample.defect_type for sample in samples))


@pytest.mark.parametrize(
    ("make", "layout", "expected"),
    [
        (mvtec, "mvtec", {GOOD: 2, "crack": 2, "hole": 1}),
        (loco, "loco", {GOOD: 1, "logical_anomalies": 2, "structural_anomalies": 1}),
        (visa, "visa", {GOOD: 1, "melded": 1, "combined": 1, "wax missing": 1}),
        (pairs, "pairs", {GOOD: 2, "crack": 2, "fray": 1}),
        (folders, "folders", {GOOD: 1, "crack": 2, "hole": 1}),
        (folders_of_defect_types, "folders", {GOOD: 1, "crack": 2, "hole": 1}),
    ],
)
def test_a_layout_is_recognised_and_read(tmp_path, make, layout, expected):
    dataset = read_dataset(make(tmp_path))
    assert dataset.layout.name == layout
    samples = dataset.samples()
    assert defect_types(samples) == expected
    for sample in samples:
        assert sample.image.shape == (*SIZE, 3)
        assert sample.mask.shape == SIZE
        assert sample.mask.any() == (sample.defect_type != GOOD)


def test_masks_of_visa_after_its_own_preparation_have_no_suffix(tmp_path):
    assert read_dataset(mvtec(tmp_path, suffix="")).samples()[0].mask.sum() == AREA


def test_all_masks_of_an_image_count_whatever_their_values(tmp_path):
    areas = {
        s.path.name: s.mask.sum() for s in read_dataset(loco(tmp_path)).samples() if s.mask.any()
    }
    assert areas == {"000.png": AREA, "001.png": 2 * AREA}  # 000: the structural one, listed last
    logical = [s for s in read_dataset(tmp_path).samples() if s.defect_type == "logical_anomalies"]
    assert [s.mask.sum() for s in logical] == [2 * AREA, 2 * AREA]


def test_classes_of_loco_have_to_be_named(tmp_path):
    dataset = read_dataset(loco(tmp_path), "loco-classes")
    assert defect_types(dataset.samples()) == {
        GOOD: 1,
        "missing_cable": 1,
        "combined": 1,
        "broken_cable": 1,
    }
    assert dataset.listing.classes[0].defect_name == "missing_cable"


def test_classes_of_loco_say_how_much_of_them_is_enough(tmp_path):
    assert [tuple(vars(c).values()) for c in read_dataset(loco(tmp_path)).listing.classes] == [
        ("missing_cable", 255, 1.0, True),
        ("extra_cable", 254, 300.0, False),
        ("broken_cable", 239, 0.5, True),
    ]


def test_masks_of_loco_may_lie_over_each_other_and_names_begin_with_digits(tmp_path):
    """As 1_additional_pushpin, whose region is one of two masks that share a part."""
    path = loco(tmp_path) / "defects_config.json"
    path.write_text(path.read_text().replace("extra_cable", "1_additional_cable"))
    folder = tmp_path / "ground_truth/logical_anomalies/000"
    write(folder / "000.png", mask(254))
    write(folder / "001.png", mask(254, x=24))
    samples = read_dataset(tmp_path, "loco-classes").samples()
    (sample,) = [s for s in samples if s.defect_type == "1_additional_cable"]
    np.testing.assert_array_equal(sample.mask, mask(1, w=12) > 0)


def test_a_value_that_loco_does_not_explain_is_a_fault(tmp_path):
    write(loco(tmp_path) / "ground_truth/logical_anomalies/000/000.png", mask(127))
    with pytest.raises(InputError, match=r"000\.png: holds the values 127, which defects_config"):
        read_dataset(tmp_path).samples()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pixel_value": 0}, "pixel_value: Input should be greater"),
        ({"defect_name": "../x"}, "defect_name: String should match"),
        ({"pixel_value": 254}, "two classes have the same pixel_value"),
        ({"saturation_threshold": "much"}, "saturation_threshold: Input should be a valid number"),
    ],
)
def test_a_list_of_classes_that_is_none(tmp_path, change, message):
    path = loco(tmp_path) / "defects_config.json"
    classes = json.loads(path.read_text())
    path.write_text(json.dumps([classes[0] | change, *classes[1:]]))
    with pytest.raises(InputError, match=message):
        read_dataset(tmp_path)


def test_small_integers_are_defect(tmp_path):
    areas = [s.mask.sum() for s in read_dataset(visa(tmp_path)).samples() if s.defect_type != GOOD]
    assert areas == [AREA, 2 * AREA, AREA]


def test_the_fringe_of_a_smeared_mask_is_not_defect(tmp_path):
    dataset = read_dataset(pairs(tmp_path))
    assert {s.mask.sum() for s in dataset.samples() if s.defect_type != GOOD} == {AREA}
    every = read_dataset(tmp_path, mask_threshold=1)
    assert {s.mask.sum() for s in every.samples() if s.defect_type != GOOD} == {AREA + 8}


@pytest.mark.parametrize(
    ("values", "fringe"),
    [
        ([0, 255], False),
        ([0, 1, 2, 3, 4, 5, 6], False),
        ([0, 64, 128, 192, 255], False),
        ([0, 3, 9, 80, 200, 255], True),
    ],
)
def test_classes_are_not_a_fringe(values, fringe):
    stored = MaskValues(np.array([values], np.uint8))
    assert smeared(stored) == fringe
    assert unsmeared(stored).sum() == (2 if fringe else len(values) - 1)


@pytest.mark.parametrize("name", ["good", "Good", "OK", "Normal", "FREE", "defect_free"])
@pytest.mark.parametrize("make", [mvtec, visa, pairs, folders, folders_of_defect_types])
def test_good_images_have_one_set_of_names(tmp_path, make, name):
    before = defect_types(read_dataset(make(tmp_path)).items)
    for folder in [p for p in tmp_path.rglob("*") if p.name in ("good", "Normal", "MT_Free")]:
        folder.rename(folder.with_name(f"MT_{name}" if folder.name == "MT_Free" else name))
    assert defect_types(read_dataset(tmp_path).items) == before


@pytest.mark.parametrize(
    ("folder", "subset"),
    [
        ("train", "train"),
        ("Train", "train"),
        ("val", "validation"),
        ("valid", "validation"),
        ("validation", "validation"),
        ("TEST", "test"),
    ],
)
@pytest.mark.parametrize(
    ("image_name", "mask_name", "layout"),
    [
        ("{}/crack/7.jpg", "{}/crack/7.png", "pairs"),
        ("crack/{}/7.jpg", "crack/{}/7.png", "pairs"),
        ("{}/crack/images/7.jpg", "{}/crack/masks/7.png", "folders"),
        ("crack/images/{}/7.jpg", "crack/Masks/{}/7.png", "folders"),
        ("images/{}/crack/7.jpg", "labels/{}/crack/7.png", "folders"),
        ("images/{}/7.jpg", "labels/{}/7.png", "folders"),
    ],
)
def test_a_subset_is_no_defect_type(tmp_path, image_name, mask_name, layout, folder, subset):
    root = tmp_path / "crack"
    write(root / image_name.format(folder), image(0))
    write(root / mask_name.format(folder), mask())
    dataset = read_dataset(root)
    (item,) = dataset.items
    assert (dataset.layout.name, item.defect_type, item.subset) == (layout, "crack", subset)
    assert item.fault is None


def test_good_images_of_a_test_folder_are_not_learned_from(tmp_path):
    pairs(tmp_path / "train")
    write(tmp_path / "test/MT_Free/9.jpg", image(9))
    dataset = read_dataset(tmp_path, "pairs")
    assert defect_types(dataset.items) == {GOOD: 3, "crack": 2, "fray": 1}
    assert defect_types(dataset.samples()) == {GOOD: 2, "crack": 2, "fray": 1}


def test_the_validation_images_of_mvtec_are_of_its_layout(tmp_path):
    write(mvtec(tmp_path) / "val/good/0.png", image(20))
    assert read_dataset(tmp_path).items[-1].subset == "validation"


def test_an_image_with_two_masks_is_a_fault(tmp_path):
    write(mvtec(tmp_path) / "ground_truth/hole/000_mask.tif", mask())
    with pytest.raises(InputError, match=r"hole/000\.png: more than one mask: 000_mask\.png, 000"):
        read_dataset(tmp_path).samples()


def test_the_only_dataset_in_a_folder_is_taken_and_two_are_not(tmp_path):
    mvtec(tmp_path / "bottle")
    assert read_dataset(tmp_path).root == tmp_path / "bottle"
    loco(tmp_path / "cable")
    with pytest.raises(InputError) as error:
        read_dataset(tmp_path)
    assert "bottle as mvtec" in str(error.value)
    assert "cable as loco" in str(error.value)
    assert read_dataset(tmp_path / "cable").layout.name == "loco"


def test_a_folder_of_datasets_is_not_taken_for_pairs_because_of_a_stray_one(tmp_path):
    mvtec(tmp_path / "bottle")
    pairs(tmp_path / "tiles")
    with pytest.raises(InputError, match=r"(?s)as pairs.*bottle as mvtec"):
        read_dataset(tmp_path)


def test_two_ways_to_read_a_folder_are_listed_and_one_can_be_named(tmp_path):
    folders(tmp_path)
    write(tmp_path / "dent" / "a.jpg", image(0))
    write(tmp_path / "dent" / "a.png", mask())
    with pytest.raises(InputError, match=r"(?s)as pairs.*as folders"):
        read_dataset(tmp_path)
    assert "dent" in read_dataset(tmp_path, "pairs").defect_types


def test_what_is_not_a_dataset(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        read_dataset(tmp_path / "none")
    with pytest.raises(InputError, match=r"layout 'kitti': one of mvtec, loco"):
        read_dataset(tmp_path, "kitti")
    with pytest.raises(InputError, match=r"(?s)no way that is known:.*mvtec: .*visa: "):
        read_dataset(tmp_path)
    write(tmp_path / "a.png", image(0))
    with pytest.raises(InputError, match="no way that is known"):
        read_dataset(tmp_path)


def test_every_fault_is_listed_at_once(tmp_path):
    mvtec(tmp_path)
    (tmp_path / "ground_truth/crack/000_mask.png").unlink()
    write(tmp_path / "ground_truth/crack/001_mask.png", mask()[:20])
    write(tmp_path / "ground_truth/hole/000_mask.png", mask(0))
    (tmp_path / "train/good/000.png").write_bytes(b"GIF89a")
    with pytest.raises(InputError) as error:
        read_dataset(tmp_path).samples()
    lines = str(error.value).splitlines()
    assert len(lines) == 4
    for part in ("crack/000.png: it has no mask", "50x20, its image 50x40", "mask is empty"):
        assert any(part in line for line in lines), part
    assert any("good/000.png: not an image" in line for line in lines)


def test_a_mask_without_a_background_is_a_fault(tmp_path):
    write(mvtec(tmp_path) / "ground_truth/hole/000_mask.png", mask() * 0 + 255)
    with pytest.raises(InputError, match="covers everything"):
        read_dataset(tmp_path).samples()


def test_a_list_that_names_files_elsewhere_reaches_nothing(tmp_path):
    """Names in lists only look up what was found below the folder."""
    path = visa(tmp_path) / "candle" / "image_anno.csv"
    path.write_text(path.read_text() + "../../secret.png,melded,../../secret.png\n")
    assert len(read_dataset(tmp_path).items) == 5
    path.write_bytes(b"image,label\n\xff\xfe,\n")
    with pytest.raises(InputError, match="not a CSV file"):
        read_dataset(tmp_path)


def test_the_real_tiles(magnetic_tile):
    dataset = read_dataset(magnetic_tile)
    assert dataset.layout.name == "pairs"
    assert dataset.defect_types == ["blowhole", "break", "crack", "fray", "uneven"]
    assert len(dataset.items) == 798
    with pytest.raises(InputError) as error:  # published with two empty masks
        dataset.samples()
    assert len(str(error.value).splitlines()) == 2
