"""What is written, opened by the programs it is for (the extra [interop])."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec

import cv2
import numpy as np
import pytest
from support.outputs import records, write_folder
from support.torchvision import WITHOUT_COMPILED

from defectrt.images.reading import read_image
from defectrt.output.formats import finish
from defectrt.output.split import Splitting

pytestmark = pytest.mark.slow
FORMATS = ["coco", "coco-rle", "labelme", "label-studio", "imagefolder"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Ten sources with a blob and a ring each, in every format, two sources to test on."""
    rng, samples = np.random.default_rng(0), []
    for i in range(10):
        good = rng.integers(0, 255, (40, 50, 3), np.uint8)
        label = cv2.GaussianBlur(rng.random((40, 50)), (0, 0), 2) > 0.55
        label[5:15, 30:42], label[8:12, 34:38] = True, False
        record = {"source": f"s{i}.png", "sample": 0, "defect": "hole"}
        samples.append((good, good[::-1], label, np.ones((40, 50), bool), record))
    out = write_folder(tmp_path_factory.mktemp("clients") / "out", ["scratch", "hole"], samples)
    finish(out, FORMATS, splitting=Splitting(test=0.2))
    return out


def labels(folder):
    return {r["image"]: read_image(folder / r["label"])[..., 0] > 0 for r in records(folder)}


def test_hugging_face_loads_the_imagefolder(folder, tmp_path):
    datasets = pytest.importorskip("datasets")
    loaded = datasets.load_dataset(
        "imagefolder", data_dir=str(folder / "imagefolder"), cache_dir=str(tmp_path)
    )
    assert {name: len(part) for name, part in loaded.items()} == {
        "train": 12,
        "validation": 4,
        "test": 2,
    }
    truth = {image.rsplit("/", 1)[1]: label for image, label in labels(folder).items()}
    for name, part in loaded.items():
        for row in part:
            assert row["label"] in (("good",) if name == "test" else ("good", "hole"))
            assert row["synthetic"] == (row["label"] != "good")
            found = np.asarray(row["mask"]) > 0
            assert found.any() == row["synthetic"]
            if row["synthetic"]:
                matches = [key for key, label in truth.items() if np.array_equal(label, found)]
                assert len(matches) == 1
                picture = read_image(folder / "plate" / "test" / "hole" / matches[0])
                np.testing.assert_array_equal(np.asarray(row["image"]), picture)


def test_label_studios_converter_takes_the_tasks_and_gives_them_back(folder, tmp_path):
    converter = pytest.importorskip("label_studio_sdk.converter")
    interface = (folder / "label-studio" / "interface.xml").read_text()
    tasks = json.loads((folder / "label-studio" / "tasks.json").read_text())
    source = tmp_path / "export.json"
    source.write_text(json.dumps([task | {"id": i} for i, task in enumerate(tasks)]))
    work = converter.Converter(interface, str(folder), download_resources=False)
    work.convert_to_coco(str(source), str(tmp_path / "coco"), is_dir=False)
    back = json.loads((tmp_path / "coco" / "result.json").read_text())
    assert {c["name"] for c in back["categories"]} == {"scratch", "hole"}
    from pycocotools import mask as coco_mask

    sums = dict.fromkeys(range(len(tasks)), 0)
    for found in back["annotations"]:
        part = coco_mask.decode(coco_mask.frPyObjects(found["segmentation"], 40, 50))
        sums[found["image_id"]] = sums[found["image_id"]] | np.asarray(part).any(axis=2)
    for task, found in zip(tasks, sums.values(), strict=True):
        (label,) = [v for k, v in labels(folder).items() if task["data"]["image"].endswith(k)]
        assert int((found != label).sum()) <= 2  # percents, rounded


def test_label_studios_importer_takes_coco_with_polygons(folder, tmp_path):
    coco = pytest.importorskip("label_studio_sdk.converter.imports.coco")
    made = tmp_path / "tasks.json"
    coco.convert_coco_to_ls(
        str(folder / "coco" / "instances_train.json"), str(made), use_super_categories=False
    )
    tasks = json.loads(made.read_text())
    assert any(task["annotations"][0]["result"] for task in tasks)
    with pytest.raises(Exception):  # noqa: B017, PT011 - why polygons are the default
        coco.convert_coco_to_ls(
            str(folder / "coco-rle" / "instances_train.json"), str(made), use_super_categories=False
        )


def test_labelme_opens_and_draws_the_labels(folder, monkeypatch):
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    labelme = pytest.importorskip("labelme")
    from labelme._label_file import LabelFile

    for image, label in labels(folder).items():
        file = LabelFile(str(folder / "labelme" / f"hole_{image[-7:-4]}.json"))
        assert file.imageData == (folder / image).read_bytes()
        found = [
            labelme.utils.shape_to_mask(label.shape, shape["points"], shape["shape_type"])
            for shape in file.shapes
        ]
        np.testing.assert_array_equal(np.logical_or.reduce(found), label)


def test_supervision_reads_coco(folder):
    supervision = pytest.importorskip("supervision")
    for name in ("coco", "coco-rle"):
        path = folder / name / "instances_train.json"
        read = supervision.DetectionDataset.from_coco(str(folder), str(path), force_masks=True)
        found = {k: v for k, v in read.annotations.items() if len(v)}
        assert len(found) == 6
        for image, detections in found.items():
            (label,) = [v for k, v in labels(folder).items() if image.endswith(k)]
            drawn = detections.mask.any(axis=0)
            assert not (label & ~drawn).any()
            assert (drawn != label).sum() < (1 if name == "coco-rle" else 250)  # draws the border


ULTRALYTICS = """
from ultralytics import YOLO
found = YOLO("yolo11n-seg.yaml").train(
    data="yolo/data.yaml", epochs=1, imgsz=64, batch=8, workers=0, device="cpu", plots=False,
    amp=False, project="runs", verbose=False)
print("trained", len(found.names), found.names[1])
"""
ANOMALIB = """
from anomalib.data import AnomalibDataModule
from anomalib.engine import Engine
from anomalib.models import Ganomaly
module = AnomalibDataModule.from_config("folder.yaml", **{"data.num_workers": 0})
engine = Engine(max_epochs=1, accelerator="cpu", logger=False, default_root_dir="runs")
engine.fit(Ganomaly(), datamodule=module)
print("trained", len(module.train_data), len(module.test_data))
"""


@pytest.mark.parametrize(
    ("needs", "program", "said"),
    [
        (("ultralytics", "polars"), ULTRALYTICS, "trained 2 hole"),
        (("anomalib", "skimage"), ANOMALIB, "trained 8 6"),
    ],
)
def test_a_folder_trains_as_it_is(folder, needs, program, said):
    for module in needs:
        if not find_spec(module):
            pytest.skip(f"{module} is not installed; it is in the extra [interop]")
    finish(folder, ["yolo"])
    env = os.environ | {"YOLO_OFFLINE": "true", "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-c", WITHOUT_COMPILED + program]
    done = subprocess.run(
        words, cwd=folder, env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert said in done.stdout
