"""Annotations of other tools: each format is recognised, read, and refused where it is odd."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask
from support.annotations import (
    ALL,
    BLOCK,
    BOX,
    coco,
    cvat,
    good,
    label_studio,
    labelme,
    png,
    voc,
    yolo,
)
from support.datasets import SIZE, image, pairs, write

from defectrt.errors import InputError
from defectrt.training.data.dataset import read_dataset
from defectrt.training.data.inspection import inspect
from defectrt.training.data.layouts import GOOD
from defectrt.training.data.layouts.shapes import (
    Box,
    Outline,
    around,
    ellipse,
    from_run_lengths,
    run_lengths_of,
)
from defectrt.training.data.proposals import propose, proposed_in
from defectrt.training.data.samples import mask_of

BOXED = {"voc": {"a", "b", "c"}}


def items(root, layout=None):
    return {item.path.stem: item for item in read_dataset(root, layout).items}


def mask_in(root, name):
    dataset = read_dataset(root)
    (item,) = [item for item in dataset.items if item.path.stem == name]
    assert item.fault is None
    return mask_of(item, dataset.listing.rule, SIZE)


def change(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(("layout", "make"), ALL.items())
def test_a_format_is_recognised_and_a_box_becomes_a_proposed_mask(tmp_path, layout, make):
    good(make(tmp_path))
    dataset = read_dataset(tmp_path)
    assert dataset.layout.name == layout
    types = Counter(item.defect_type for item in dataset.items)
    assert types == {GOOD: 5, "crack": 2, "hole": 1}
    boxed = BOXED.get(layout, {"c"})
    faults = {item.path.stem: item.fault for item in dataset.items if item.fault}
    assert faults.keys() == boxed
    assert "only a box around its defect; defectrt data propose" in faults["c"]
    found = propose(tmp_path, [])
    assert len(found.proposed) + len(found.nothing) == len(boxed)
    assert any(name.endswith("c.png") for name in found.proposed)
    dataset = read_dataset(tmp_path)
    assert dataset.layout.name == layout
    assert {path.stem for path in proposed_in(tmp_path)} >= {"c"}
    if layout != "voc":
        assert [s.mask.any() for s in dataset.samples()].count(True) == 3
        assert inspect(dataset).problems == []
    hole = mask_in(tmp_path, "c")
    left, top, right, bottom = BOX
    assert hole[8:12, 11:17].all()
    assert not np.delete(hole, np.s_[top:bottom], axis=0).any()
    assert not hole[:, :left].any()
    assert not hole[:, right:].any()


@pytest.mark.parametrize("layout", sorted(ALL.keys() - {"voc"}))
def test_a_polygon_covers_its_px(tmp_path, layout):
    found = mask_in(ALL[layout](tmp_path), "a")
    if layout in ("yolo", "labelme"):  # drawn on px, so that the last row and column are in it
        found = found[:, :25] & (np.arange(SIZE[0]) < 16)[:, None]
        found = np.pad(found, ((0, 0), (0, 25)))
    np.testing.assert_array_equal(found, BLOCK)


def test_the_real_clients_polygons_are_ours_within_their_rim():
    rng = np.random.default_rng(0)
    for _ in range(50):
        at = np.sort(rng.uniform(0, 2 * np.pi, 9))
        points = np.stack([np.cos(at), np.sin(at)], 1) * rng.uniform(3, 18, (9, 1)) + (25, 20)
        theirs = coco_mask.decode(coco_mask.frPyObjects([points.ravel().tolist()], *SIZE))[..., 0]
        ours = Outline(points).paint(SIZE)
        both = ours & (theirs > 0)
        assert both.sum() > 0.9 * (ours | (theirs > 0)).sum()
        assert abs(int(ours.sum()) - int(theirs.sum())) <= 12


@settings(max_examples=40)
@given(*[st.integers(0, 30)] * 2, *[st.integers(1, 30)] * 2)
def test_a_polygon_along_the_edges_of_px_is_exact_as_in_pycocotools(x, y, width, height):
    corners = [x, y, x + width, y, x + width, y + height, x, y + height]
    theirs = coco_mask.decode(coco_mask.frPyObjects([[float(v) for v in corners]], *SIZE))[..., 0]
    np.testing.assert_array_equal(Outline(np.reshape(corners, (4, 2))).paint(SIZE), theirs > 0)


@settings(max_examples=40)
@given(arrays(bool, st.tuples(st.integers(1, 60), st.integers(1, 60))))
def test_run_lengths_are_those_of_pycocotools(mask):
    text = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    found = from_run_lengths(run_lengths_of(text), mask.shape, columns=True)
    np.testing.assert_array_equal(found, mask)


@settings(max_examples=200)
@given(st.text(max_size=40) | st.text(alphabet="0123456789:;<=>?@ABo", max_size=40))
def test_a_text_that_is_no_run_lengths_is_refused_or_read(text):
    with suppress(InputError):
        assert from_run_lengths(run_lengths_of(text), (5, 6), columns=True).shape == (5, 6)


def test_run_lengths_as_numbers_and_as_text(tmp_path):
    text = coco_mask.encode(np.asfortranarray(BLOCK.astype(np.uint8)))["counts"].decode()
    numbers = run_lengths_of(text).tolist()
    for n, counts in enumerate((text, numbers)):
        root = coco(tmp_path / str(n), {"size": list(SIZE), "counts": counts})
        np.testing.assert_array_equal(mask_in(root, "a"), BLOCK)


def test_masks_of_labelme_and_of_cvat_lie_where_they_say(tmp_path):
    part = BLOCK[10:16, 5:25]
    labelme(tmp_path / "l")
    shape = {"label": "crack", "shape_type": "mask", "points": [[5, 10], [24, 15]]}
    shape["mask"] = png(part)
    path = tmp_path / "l" / "a.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"shapes": [shape]}))
    np.testing.assert_array_equal(mask_in(tmp_path / "l", "a"), BLOCK)
    cvat(tmp_path / "c")
    place = 'left="5" top="10" width="20" height="6"'
    text = (tmp_path / "c" / "annotations.xml").read_text()
    start, end = text.index("<polygon"), text.index("</polygon>")
    drawn = f'<mask label="crack" rle="0, 120" {place}>'
    text = text[:start] + drawn + "</mask>" + text[end + len("</polygon>") :]
    (tmp_path / "c" / "annotations.xml").write_text(text)
    np.testing.assert_array_equal(mask_in(tmp_path / "c", "a"), BLOCK)


def test_shapes():
    circle = Outline(ellipse(25, 20, 10, 10)).paint(SIZE)
    assert circle.sum() == pytest.approx(np.pi * 100, rel=0.03)
    turned = Outline(ellipse(25, 20, 15, 4, 90)).paint(SIZE)
    assert turned.any(axis=1).sum() == 30
    assert around(10, 10, 20, 14, (10, 10), 90).within(SIZE) == (10, 6, 20, 10)
    line = Outline(np.array([[3.2, 4.1], [9.0, 4.1], [9.0, 4.2]])).paint(SIZE)
    assert line.sum() >= 6  # too thin for the middle of any px
    ring = [(0, 0), (10, 0), (10, 10), (0, 10), (0, 0), (3, 3), (7, 3), (7, 7), (3, 7), (3, 3)]
    assert Outline(np.array(ring, float)).paint(SIZE).sum() == 100 - 16
    far = Outline(np.array([[-1e30, 5], [1e30, 5], [0, 1e30]])).paint(SIZE)
    assert far.shape == SIZE
    with pytest.raises(InputError, match="outside its image"):
        Box(60, 0, 70, 5).within(SIZE)


def test_an_image_with_several_labels_is_combined_and_a_label_of_good_is_no_defect(tmp_path):
    labelme(tmp_path)
    path = tmp_path / "a.json"
    data = json.loads(path.read_text())
    data["shapes"].append(data["shapes"][0] | {"label": "ok"})
    path.write_text(json.dumps(data))
    assert items(tmp_path)["a"].defect_type == "crack"
    data["shapes"].append(data["shapes"][0] | {"label": "Dent"})
    path.write_text(json.dumps(data))
    assert items(tmp_path)["a"].defect_type == "combined"


def test_two_images_of_one_name_are_told_apart_by_their_folders(tmp_path):
    yolo(tmp_path)
    write(tmp_path / "images" / "val" / "a.png", image(9))
    (tmp_path / "labels" / "val").mkdir()
    (tmp_path / "labels" / "val" / "a.txt").write_text("")
    subsets = {(i.name, i.defect_type, i.subset) for i in read_dataset(tmp_path).items}
    assert {("images/train/a.png", "crack", "train"), ("images/val/a.png", GOOD, "validation")} <= (
        subsets
    )
    root = coco(tmp_path / "coco")
    write(root / "more" / "a.png", image(9))
    assert "may be images/a.png, more/a.png" in items(root)["a"].fault


def test_what_is_annotated_and_has_masks_of_a_layout_is_read_by_its_masks(tmp_path):
    pairs(labelme(tmp_path))
    with pytest.raises(InputError, match=r"(?s)more than one way.*as pairs.*as labelme"):
        read_dataset(tmp_path)
    assert read_dataset(tmp_path, "labelme").layout.name == "labelme"


@pytest.mark.parametrize(
    ("make", "file", "old", "new", "said"),
    [
        (
            coco,
            "annotations/instances_default.json",
            '"images"',
            '"pictures"',
            "no way that is known",
        ),
        (
            coco,
            "annotations/instances_default.json",
            '"categories": [',
            '"categories": [3, ',
            "categories.0: Input should be an object",
        ),
        (coco, "annotations/instances_default.json", '"image_id": 0', '"image_id": 9', "lacks"),
        (coco, "annotations/instances_default.json", '{"info"', '{"info', "JSON"),
        (labelme, "a.json", '"shapes": [', '"shapes": {', "JSON"),
        (voc, "Annotations/a.xml", "<annotation>", "<annotation><x>", "not XML"),
        (
            voc,
            "Annotations/a.xml",
            "<annotation>",
            '<!DOCTYPE a [<!ENTITY b "bb">]><annotation>',
            "DOCTYPE",
        ),
        (cvat, "annotations.xml", "<version>", '<track id="0"></track><version>', "of a video"),
        (yolo, "data.yaml", "names:", "nombres:", "no data.yaml with names"),
        (yolo, "data.yaml", "0: crack", "x: crack", "numbers with names"),
        (
            label_studio,
            "project.json",
            '"data": {',
            '"data": 3, "x": {',
            r"0\.data: Input should be an object",
        ),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, make, file, old, new, said):
    change(make(tmp_path) / file, old, new)
    with pytest.raises(InputError, match=said) as error:
        read_dataset(tmp_path)
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize(
    ("make", "file", "old", "new", "said"),
    [
        (
            coco,
            "annotations/instances_default.json",
            '"a.png"',
            '"../../a9.png"',
            "not in the folder",
        ),
        (
            coco,
            "annotations/instances_default.json",
            '"category_id": 1',
            '"category_id": 2',
            "not among",
        ),
        (coco, "annotations/instances_default.json", "[[5.0, 10.0,", "[[5.0,", "half of one"),
        (labelme, "a.json", '"polygon"', '"linestrip"', "has no area"),
        (labelme, "a.json", '"crack"', '"???"', "cannot be the name of a type"),
        (cvat, "annotations.xml", 'points="5.00', 'points="nan', "not a number"),
        (cvat, "annotations.xml", "<polygon", "<polyline", "not XML"),
        (voc, "Annotations/a.xml", "<xmin>6", "<xmin>six", "xmin is 'six'"),
        (voc, "Annotations/a.xml", "<bndbox>", "<bndbox/><x>", "not XML"),
        (yolo, "labels/train/a.txt", "0 0.1", "5 0.1", "class 5 has no name"),
        (yolo, "labels/train/a.txt", "0 0.1", "0 1.1", "shares of the image"),
        (yolo, "labels/train/a.txt", "0 0.1", "0 0.5 0.1", "line 1: expected"),
        (label_studio, "project.json", '"polygonlabels": ["crack"]', '"polygonlabels": []', "one"),
        (label_studio, "project.json", '"points": [[', '"points": [["x", ', "cannot be read"),
        (label_studio, "project.json", '"original_width": 50', '"original_width": 0', "how large"),
    ],
)
def test_what_is_odd_is_a_fault_of_its_image_or_file(tmp_path, make, file, old, new, said):
    change(make(tmp_path) / file, old, new)
    try:
        faults = [item.fault or "" for item in read_dataset(tmp_path).items]
    except InputError as fault:
        faults = [str(fault)]
    assert any(said in fault for fault in faults), faults


@pytest.mark.parametrize("make", [coco, cvat, labelme, label_studio])
def test_annotations_of_another_size_are_refused(tmp_path, make):
    root = make(tmp_path)
    (path,) = root.rglob("a.png")
    write(path, np.zeros((SIZE[0] + 1, SIZE[1], 3), np.uint8))
    dataset = read_dataset(root)
    (item,) = [item for item in dataset.items if item.path.stem == "a"]
    with pytest.raises(InputError, match="annotated as 50x40, and the image is 50x41"):
        mask_of(item, dataset.listing.rule, (SIZE[0] + 1, SIZE[1]))


def test_damaged_masks_are_faults(tmp_path):
    for n, (first, said) in enumerate(
        [
            ({"size": [40, 50], "counts": [5, 3]}, "do not make up 50x40"),
            ({"size": [40, 50], "counts": "zzz"}, "damaged"),
            ({"size": [4, 5], "counts": [20]}, "run lengths of 5x4"),
        ]
    ):
        with pytest.raises(InputError, match=said):
            mask_in(coco(tmp_path / str(n), first), "a")
    root = labelme(tmp_path / "l")
    shape = {"label": "crack", "shape_type": "mask", "points": [[45, 10], [64, 15]]}
    for mask, said in ((png(BLOCK[10:16, 5:25]), "leaves its image"), ("no", "no PNG in base64")):
        data = json.loads((root / "a.json").read_text()) | {"shapes": [shape | {"mask": mask}]}
        (root / "a.json").write_text(json.dumps(data))
        with pytest.raises(InputError, match=said):
            mask_in(root, "a")


def test_a_task_that_several_people_annotated_needs_one_truth(tmp_path):
    path = label_studio(tmp_path) / "project.json"
    tasks = json.loads(path.read_text())
    tasks[0]["annotations"].append(tasks[1]["annotations"][0])
    tasks[3]["annotations"][0]["was_cancelled"] = True
    path.write_text(json.dumps(tasks))
    found = items(tmp_path)
    assert "annotated 2 times" in found["a"].fault
    assert "d" not in found
    tasks[0]["annotations"][1]["ground_truth"] = True
    path.write_text(json.dumps(tasks))
    assert items(tmp_path)["a"].fault is None
