"""Other people's readers open what comes out: the real anomalib and ultralytics.

They live in .cache/readers, where ./check-needs puts them; without it these tests are skipped.
torchvision's compiled part does not load beside a torch that was built elsewhere. Nothing here
needs it, but importing torchvision looks for two of its operators, so they are declared first.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.outputs import records, save

from defectrt.images.reading import read_image
from defectrt.output.formats import finish
from defectrt.synthesis.job import synthesize

READERS = Path(__file__).parents[3] / ".cache" / "readers"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not READERS.is_dir(), reason="./check-needs brings the readers"),
]

DECLARE = """
import torch
library = torch.library.Library("torchvision", "DEF")
for name in ("nms", "qnms"):
    library.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""
ANOMALIB = """
import json, logging, warnings
logging.basicConfig(level=logging.INFO, format="%(message)s")
from anomalib.data import AnomalibDataModule, Folder, MVTecAD
warnings.simplefilter("error")
modules = {
    "mvtec": MVTecAD(".", "plate", num_workers=0),
    "folder": Folder("plate", "train/good", "plate", ["test/spot"], "test/good",
                     ["ground_truth/spot"], num_workers=0, val_split_mode="same_as_test"),
    "yaml": AnomalibDataModule.from_config("folder.yaml", **{"data.num_workers": 0}),
}
def items(data):
    return [[i.image_path, i.gt_label.item(), i.gt_mask.int().tolist(), list(i.image.shape)]
            for i in (data[n] for n in range(len(data)))]
found = {}
for name, module in modules.items():
    module.prepare_data()
    module.setup()
    batches = [len(b.image) for b in module.train_dataloader()]
    found[name] = {"train": items(module.train_data), "test": items(module.test_data),
                   "val": items(module.val_data), "task": module.task, "batches": batches}
print(json.dumps(found))
"""
ULTRALYTICS = """
import json
from ultralytics.data.dataset import YOLODataset
from ultralytics.data.utils import check_det_dataset, polygons2masks
data = check_det_dataset("yolo/data.yaml", autodownload=False)
found = {}
for part in ("train", "val"):
    dataset = YOLODataset(data=data, task="segment", img_path=data[part], augment=False)
    for label in dataset.labels:
        size = label["shape"]
        polygons = [(s * size[::-1]).reshape(-1) for s in label["segments"]]
        masks = polygons2masks(size, polygons, color=1) if polygons else []
        found[label["im_file"]] = [label["cls"].ravel().tolist(), sum(masks).tolist()
                                   if polygons else 0]
print(json.dumps([data["names"], found]))
"""


@pytest.fixture
def folder(fake_engine, tmp_path):
    """Ten images of one size, two instances each, every format; made by the whole job."""
    images, rng = tmp_path / "images", np.random.default_rng(0)
    for i in range(10):
        save(images / f"{i}.png", rng.integers(140, 170, (48, 40), np.uint8))
    out = tmp_path / "out"
    options = {"engine": fake_engine[0], "count": 2, "category": "plate"}
    synthesize(images, out, quiet=True, **options).check()
    finish(out, ["coco", "yolo"])
    return out


def reader(program, *, cwd):
    env = os.environ | {
        "PYTHONPATH": str(READERS),
        "OMP_NUM_THREADS": "1",
        "YOLO_CONFIG_DIR": str(cwd / ".yolo"),
        "YOLO_OFFLINE": "true",
        "MPLCONFIGDIR": str(cwd / ".mpl"),
    }
    words = [sys.executable, "-c", DECLARE + program]
    result = subprocess.run(words, capture_output=True, text=True, cwd=cwd, env=env, check=False)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1]), result.stderr


def test_anomalib_opens_the_folder_without_a_complaint(folder):
    opened, said = reader(ANOMALIB, cwd=folder)
    assert "Found the dataset" in said  # it does log
    assert "No normal test images" not in said
    assert "hidden files" not in said
    assert opened.keys() == {"mvtec", "folder", "yaml"}
    for module, found in opened.items():
        check_opened(folder, found, found["test"] + (found["val"] if module == "yaml" else []))


def check_opened(folder, found, tests):
    assert found["task"] == "segmentation"
    assert len(found["train"]) == sum(found["batches"]) == 8
    assert all(label == 0 for _, label, _, _ in found["train"])
    assert len(tests) == 2 + 20
    labels = {str(folder / r["image"]): folder / r["label"] for r in records(folder)}
    for path, label, mask, shape in tests:
        assert shape == [3, 48, 40]
        path = str((folder / path).resolve())
        assert label == (path in labels)
        expected = read_image(labels[path])[..., 0] > 0 if label else np.zeros((48, 40))
        np.testing.assert_array_equal(mask, expected)
    assert {Path(t[0]).name for t in tests if t[1] == 0} == {"004.png", "009.png"}


def test_ultralytics_opens_the_folder_and_draws_the_labels(folder):
    (names, found), _ = reader(ULTRALYTICS, cwd=folder)
    assert names == {"0": "spot"}
    assert len(found) == 10 + 20
    for r in records(folder):
        (path,) = (p for p in found if p.endswith(f"/spot_{r['image'][-7:]}"))
        defect_types, mask = found.pop(path)
        assert defect_types == [0.0]
        np.testing.assert_array_equal(mask, read_image(folder / r["label"])[..., 0] > 0)
    assert all(defect_types == [] for defect_types, _ in found.values())
