"""Measuring a run on what it has not seen: known answers, refusals, and the command."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
from PIL import Image
from support.datasets import image, mask, write
from support.program import command_line

from defectrt.errors import InputError
from defectrt.training.data.dataset import read_dataset
from defectrt.training.data.samples import Sample
from defectrt.training.evaluation.heldout import FEATURES, evaluate, features
from defectrt.training.evaluation.spread import spread_distance

#: Importing diffusers and opening models takes seconds.
pytestmark = pytest.mark.slow

QUICK = {"count": 3, "steps": 2, "batch_size": 2}


@pytest.fixture
def unseen(tmp_path):
    """Three instances, a line, a dent (which the run does not know) and two good ones."""
    for i, defect_type in enumerate(("spot", "spot", "spot", "line", "dent")):
        write(tmp_path / "data" / defect_type / f"{i}.jpg", image(500 + i))
        write(tmp_path / "data" / defect_type / f"{i}.png", mask())
    for i in range(2):
        write(tmp_path / "data" / "good" / f"{i}.jpg", image(600 + i))
    return read_dataset(tmp_path / "data")


def test_features_are_relative_to_the_surroundings():
    rng = np.random.default_rng(0)
    m = np.zeros((3, 1, 64, 64), np.float32)
    m[:, :, 20:40, 20:40] = 1
    grain = rng.normal(0, 10 / 127.5, (3, 1, 64, 64)).repeat(3, axis=1).astype(np.float32)
    pixels = grain.copy()
    pixels[1] -= m[1] * 50 / 127.5  # darker, with sharp edges
    pixels[2] *= 1 + 2 * m[2]  # rougher by three
    plain, dark, rough = features(pixels, m)
    assert plain == pytest.approx([0, 1, 1], abs=2)
    assert plain[1:] == pytest.approx([1, 1], abs=0.25)
    assert dark[0] == pytest.approx(-50, abs=2)
    assert dark[2] > 2 * plain[2]
    assert rough[1] == pytest.approx(3, rel=0.15)
    assert features(pixels + 0.2, m)[1] == pytest.approx(dark, rel=1e-3)  # not of the level


def test_a_mask_to_the_border_has_a_ring_too():
    m = np.ones((1, 1, 16, 16), np.float32)
    m[0, 0, 0, 0] = 0
    assert np.isfinite(features(np.zeros((1, 3, 16, 16), np.float32), m)).all()


def test_the_distance_is_in_units_of_the_real_spread():
    real = np.random.default_rng(0).normal(5, [1, 10], (4000, 2))
    assert spread_distance(real, real) == pytest.approx([0, 0])
    assert spread_distance(real, real + real.std(0)) == pytest.approx([1, 1], rel=1e-3)
    assert spread_distance(real, np.full((10, 2), 5.0)) == pytest.approx([0.8, 0.8], abs=0.02)


@pytest.mark.slow
def test_a_run_is_measured_on_held_out_images(run, unseen, tmp_path):
    samples = unseen.read(unseen.items)
    result = evaluate(run, samples, out=tmp_path / "out", **QUICK)
    assert result.skipped == {"dent": "the run was not trained for it"}
    assert {defect_type: f.samples for defect_type, f in result.defect_types.items()} == {
        "spot": 3,
        "line": 1,
    }
    instance = result.defect_types["spot"]
    assert 0 <= instance.shown <= 1
    assert instance.outside >= instance.autoencoder * 0.5 > 0
    assert instance.diversity > 0
    assert instance.real.keys() == instance.distance.keys() == set(FEATURES)
    assert evaluate(run, samples, out=tmp_path / "again", **QUICK) == result
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text()) == asdict(result)
    with Image.open(tmp_path / "out" / "samples.png") as image:
        assert image.size == (3 * 96, 4 * 96)  # 3 instances and a line: image, mask, result


def test_what_the_run_has_seen_is_refused(run, unseen):
    record = json.loads((run / "run.json").read_text())
    path = run.parent / "0.bin"
    assert record["dataset"][0]["name"] == "spot/0.bin"
    again = Sample(path, "spot", image(0), mask() > 0)
    with pytest.raises(InputError, match=r"learned from 1 of the images.*0\.bin"):
        evaluate(run, [*unseen.read(unseen.items), again])


def test_defect_types_that_a_run_does_not_make_are_no_measure(run, unseen):
    dents = [item for item in unseen.items if item.defect_type == "dent"]
    with pytest.raises(InputError, match="makes line, spot; the held-out images show dent"):
        evaluate(run, unseen.read(dents))
    with pytest.raises(InputError, match="not a run"):
        evaluate(run.parent, unseen.read(dents))


def filled(unseen, defect_type):
    """Held-out defects of one defect type, all larger than the window."""
    for path in (unseen.root / defect_type).glob("*.png"):
        write(path, mask(x=0, y=0, h=40, w=49))
    dataset = read_dataset(unseen.root)
    return dataset.read([item for item in dataset.items if item.defect_type != "dent"])


def test_a_defect_that_fills_the_window_cannot_be_compared(run, unseen, tmp_path):
    result = evaluate(run, filled(unseen, "line"), out=tmp_path / "out", **QUICK)
    assert result.skipped == {"line": "its defects fill the window of 32 px"}
    assert list(result.defect_types) == ["spot"]
    with pytest.raises(InputError, match="every defect fills the window"):
        evaluate(run, filled(unseen, "spot"), out=tmp_path / "out", **QUICK)


@pytest.mark.slow
def test_the_command(run, unseen, tmp_path):
    from defectrt.training.data.splits import fold, write_split

    split = tmp_path / "split.json"
    write_split(fold(unseen, 0), split)
    words = ["evaluate", run, "--real", unseen.root, "--split", split, "--out", tmp_path / "out"]
    options = ["--count", 2, "--steps", 2, "--quiet"]
    done = command_line(*words, *options)
    assert done.returncode == 0, done.stderr
    assert "spot" in done.stdout
    assert "contrast (real, distance)" in done.stdout
    as_json = command_line(*words, *options, "--json")
    figures = json.loads(next(x for x in as_json.stdout.splitlines() if x.startswith("{")))
    assert figures["images"] == len(fold(unseen, 0).test)
    seen = figures["pictures"]["types"]["spot"]
    assert seen["made"] == seen["real"] == 2
    assert "EfficientNet-Lite0 (ImageNet)" in done.stdout
    assert json.loads((tmp_path / "out" / "pictures.json").read_text()) == figures["pictures"]
    assert "://" not in (tmp_path / "out" / "report.html").read_text()
