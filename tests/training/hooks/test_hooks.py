"""Hooks for other programs' training, each as that program calls it."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from defectrt import Synthesizer
from defectrt.errors import InputError
from defectrt.training.hooks.anomalib import AnomalyGenerator
from defectrt.training.hooks.dataset import MadeDefects


@pytest.fixture
def paths(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(3):
        Image.fromarray(rng.integers(140, 170, (48, 40, 3), np.uint8)).save(tmp_path / f"{i}.png")
    return sorted(tmp_path.glob("*.png"))


def batches(dataset, **options):
    return list(DataLoader(dataset, batch_size=2, **options))


def test_samples_are_those_of_a_synthesizer(fake_engine, paths):
    made = MadeDefects(paths, engine=fake_engine[0], count=2)
    assert len(made) == 6
    with Synthesizer(engine=fake_engine[0], count=2) as synthesizer:
        for place in range(6):
            sample = made[place]
            result = synthesizer(paths[place % 3], number=place // 3)
            assert (sample["name"], sample["number"]) == (paths[place % 3].name, place // 3)
            assert sample["defect"] == result.defect
            expected = torch.from_numpy(result.image.astype(np.float32) / 255).movedim(-1, 0)
            torch.testing.assert_close(sample["image"], expected, rtol=0, atol=0)
            np.testing.assert_array_equal(sample["mask"].numpy(), result.label)
    assert sum(bool(made[i]["mask"].any()) for i in range(6)) > 3
    with pytest.raises(IndexError):
        made[6]
    assert torch.equal(made[-1]["image"], made[5]["image"])
    only = MadeDefects(paths, engine=fake_engine[0], transform=lambda sample: sample["name"])
    assert only[1] == paths[1].name


@pytest.mark.slow
def test_workers_make_the_same_samples(paths):
    made = MadeDefects(paths, defect="crack", steps=10, threads=1)
    alone = batches(made)  # its engine is open now, and no child may use it
    beside = batches(made, num_workers=2, multiprocessing_context="fork")
    for one, other in zip(alone, beside, strict=True):
        assert one["name"] == other["name"]
        assert torch.equal(one["image"], other["image"])
        assert torch.equal(one["mask"], other["mask"])


def test_an_open_dataset_is_pickled_without_its_engine(fake_engine, paths):
    made = MadeDefects(paths, engine=fake_engine[0])
    first = made[0]
    assert torch.equal(pickle.loads(pickle.dumps(made))[0]["image"], first["image"])


def test_an_anomaly_generator_paints_some_images_and_marks_where(fake_engine):
    generator = AnomalyGenerator(engine=fake_engine[0], probability=0.5)
    images = torch.rand(8, 3, 48, 40) * 0.1 + 0.6
    torch.manual_seed(1)
    made, masks = generator(images)
    assert made.shape == images.shape
    assert masks.shape == (8, 1, 48, 40)
    assert set(masks.unique().tolist()) == {0.0, 1.0}
    changed = (made != images).any(dim=1, keepdim=True)
    assert 0 < changed.flatten(1).any(dim=1).sum() < 8
    assert not masks[~changed.flatten(1).any(dim=1)].any()
    torch.manual_seed(1)
    again, _ = copy.deepcopy(generator)(images)
    assert torch.equal(made, again)
    one, mask = AnomalyGenerator(engine=fake_engine[0], probability=1.0)(images[0])
    assert (one.shape, mask.shape) == ((3, 48, 40), (1, 48, 40))
    none, _ = AnomalyGenerator(engine=fake_engine[0], probability=0.0)(images)
    assert torch.equal(none, images)
    with pytest.raises(InputError, match="before they are normalised"):
        generator(images - 1)


@pytest.mark.slow
def test_a_transform_of_albumentations(fake_engine):
    albumentations = pytest.importorskip("albumentations")
    from defectrt.training.hooks.albumentations import PaintDefect

    image = np.random.default_rng(0).integers(140, 170, (48, 40, 3), np.uint8)
    mask = np.zeros((48, 40), np.uint8)
    painting = PaintDefect(engine=fake_engine[0], p=1.0, value=7)
    whole = albumentations.Compose([painting, albumentations.HorizontalFlip(p=1.0)], seed=3)
    one, two = whole(image=image, mask=mask), whole(image=image, mask=mask)
    again = albumentations.Compose([painting, albumentations.HorizontalFlip(p=1.0)], seed=3)
    same = again(image=image, mask=mask)
    np.testing.assert_array_equal(one["image"], same["image"])
    assert (one["image"] != two["image"]).any()
    assert not mask.any()
    changed = (one["image"][:, ::-1] != image).any(axis=2)
    marked = one["mask"][:, ::-1]
    assert set(np.unique(marked).tolist()) == {0, 7}
    assert not ((marked > 0) & ~changed).sum() > 3
    off = PaintDefect(engine=fake_engine[0], p=0.0)
    np.testing.assert_array_equal(off(image=image, mask=mask)["image"], image)


DRAEM = """
import torch
from anomalib.models import Draem
from defectrt.training.hooks.anomalib import AnomalyGenerator
from types import SimpleNamespace
model = Draem(dtd_dir=".")  # which would be fetched otherwise
model.augmenter = AnomalyGenerator(defect="crack", steps=10, probability=1.0)
model.log = lambda *_, **__: None
loss = model.training_step(SimpleNamespace(image=torch.rand(2, 3, 64, 64) * 0.1 + 0.6))
loss["loss"].backward()
print("loss", float(loss["loss"].detach()))
"""


@pytest.mark.slow
def test_draem_of_anomalib_takes_a_step_with_the_generator(tmp_path):
    if not find_spec("anomalib") or not find_spec("timm"):
        pytest.skip("anomalib is not installed; it is in the extra [interop]")
    from support.torchvision import WITHOUT_COMPILED

    words = [sys.executable, "-c", WITHOUT_COMPILED + DRAEM]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        words, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert float(done.stdout.split("loss")[-1]) > 0
