"""What other programs write, by the programs themselves (the extra [interop]), is read here."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from support.annotations import label_studio
from support.datasets import SIZE, image

from defectrt.training.data.dataset import read_dataset
from defectrt.training.data.samples import mask_of

pytestmark = pytest.mark.slow

BLOCK = np.zeros(SIZE, bool)
BLOCK[10:16, 5:25] = True
RING = np.zeros(SIZE, bool)
RING[20:30, 10:40] = True
RING[24:27, 20:30] = False


def masks(root):
    dataset = read_dataset(root)
    found = {}
    for item in dataset.items:
        mask = None if item.fault else mask_of(item, dataset.listing.rule, SIZE)
        found[item.path.stem] = (item.defect_type, item.fault, mask)
    return dataset.layout.name, found


def same(one, other, rim):
    """As many px as differ at most."""
    return int((one != other).sum()) <= rim


@pytest.fixture
def exported(tmp_path):
    """A dataset of supervision's: a crack, a hole with a hole in it, a good picture."""
    supervision = pytest.importorskip("supervision")
    paths = [str(tmp_path / f"{i}.png") for i in range(3)]
    for i, path in enumerate(paths):
        Image.fromarray(image(i)).save(path)

    def detections(mask, kind):
        ys, xs = np.nonzero(mask)
        box = np.array([[xs.min(), ys.min(), xs.max(), ys.max()]], float)
        return supervision.Detections(xyxy=box, mask=mask[None], class_id=np.array([kind]))

    none = supervision.Detections.empty()
    found = dict(zip(paths, (detections(BLOCK, 0), detections(RING, 1), none), strict=True))
    return supervision.DetectionDataset(["crack", "hole"], paths, found)


def test_supervision_writes_coco(exported, tmp_path):
    root = tmp_path / "coco"
    exported.as_coco(str(root / "images"), str(root / "annotations.json"))
    layout, found = masks(root)
    assert layout == "coco"
    assert [found[name][0] for name in "012"] == ["crack", "hole", "good"]
    # its polygons go through the middles of px, so that the last row and column are outside
    assert same(found["0"][2], BLOCK, rim=25)
    assert same(found["1"][2], RING, rim=60)


def test_supervision_writes_yolo(exported, tmp_path):
    root = tmp_path / "yolo"
    exported.as_yolo(str(root / "images"), str(root / "labels"), str(root / "data.yaml"))
    layout, found = masks(root)
    assert layout == "yolo"
    assert [found[name][0] for name in "012"] == ["crack", "hole", "good"]
    np.testing.assert_array_equal(found["0"][2], BLOCK)


def test_supervision_writes_pascal_voc(exported, tmp_path):
    root = tmp_path / "voc"
    exported.as_pascal_voc(str(root / "images"), str(root / "annotations"))
    layout, found = masks(root)
    assert layout == "voc"
    assert [found[name][0] for name in "012"] == ["crack", "hole", "good"]
    assert "only a box" in found["0"][1]


def test_labelme_writes_polygons_and_masks(tmp_path, monkeypatch):
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    labelme = pytest.importorskip("labelme")
    from labelme._label_file import LabelFile  # its only class that writes

    picture = tmp_path / "0.png"
    Image.fromarray(image(0)).save(picture)
    points = [[5, 10], [24, 10], [24, 15], [5, 15]]
    part = labelme.utils.img_arr_to_b64(RING[20:30, 10:40].astype(np.uint8))
    common = {"group_id": None, "description": "", "flags": {}}
    shapes = [
        common | {"label": "crack", "points": points, "shape_type": "polygon", "mask": None},
        common | {"label": "crack", "points": [[10, 20], [39, 29]], "shape_type": "mask"},
    ]
    shapes[1]["mask"] = part
    LabelFile().save(str(tmp_path / "0.json"), shapes, "0.png", *SIZE)
    theirs = labelme.utils.shape_to_mask(SIZE, points, "polygon")
    layout, found = masks(tmp_path)
    assert (layout, found["0"][0]) == ("labelme", "crack")
    np.testing.assert_array_equal(found["0"][2], theirs | RING)


def test_a_brush_of_label_studio(tmp_path):
    brush = pytest.importorskip("label_studio_sdk.converter.brush")
    path = label_studio(tmp_path) / "project.json"
    rng = np.random.default_rng(0)
    noise = rng.random(SIZE) < 0.2
    for mask in (RING, noise):
        data = brush.mask2rle(mask.astype(np.uint8) * 255)
        tasks = json.loads(path.read_text())
        value = {"format": "rle", "rle": data, "brushlabels": ["crack"]}
        size = {"original_width": SIZE[1], "original_height": SIZE[0]}
        result = [{"type": "brushlabels", "value": value} | size]
        tasks[0]["annotations"] = [{"result": result}]
        path.write_text(json.dumps(tasks))
        _, found = masks(tmp_path)
        np.testing.assert_array_equal(found["a"][2], mask)


def test_datumaro_writes_cvat(tmp_path):
    dm = pytest.importorskip("datumaro", minversion="1.10")
    items = [
        dm.DatasetItem("0", media=dm.Image.from_numpy(image(0)), annotations=[found])
        for found in [dm.Mask(RING, label=0, id=1)]
    ]
    items.append(
        dm.DatasetItem(
            "1",
            media=dm.Image.from_numpy(image(1)),
            annotations=[dm.Polygon([5, 10, 25, 10, 25, 16, 5, 16], label=0, id=2)],
        )
    )
    exported = dm.Dataset.from_iterable(items, categories=["crack"])
    exported.export(str(tmp_path / "cvat"), "cvat", save_media=True)
    layout, found = masks(tmp_path / "cvat")
    assert layout == "cvat"
    np.testing.assert_array_equal(found["0"][2], RING)
    np.testing.assert_array_equal(found["1"][2], BLOCK)
