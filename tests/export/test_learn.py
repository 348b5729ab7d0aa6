"""From a handful of defects to an engine, as a user does it."""

from __future__ import annotations

import json
import shutil
from unittest.mock import patch

import numpy as np
import pytest
from PIL import Image
from support.datasets import loco
from support.outputs import records, save
from support.program import command_line

import defectrt
from defectrt.engines.manifest import read_manifest
from defectrt.errors import InputError
from defectrt.export import learn as module
from defectrt.export.learn import PLAN, SHEET, learn
from defectrt.files import sha256_of
from defectrt.masks.examples import read_examples
from defectrt.training.bundled import BUNDLED_RUN, open_base
from defectrt.training.models.stable_diffusion import SIZES, new_model, open_model

pytestmark = pytest.mark.slow


def surface(seed, side=64):
    rng = np.random.default_rng(seed)
    return rng.normal(150, 8, (side, side)).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Six pits and two lines with their masks, and three good images."""
    root = tmp_path_factory.mktemp("data")
    for i in range(3):
        save(root / "good" / f"{i}.png", surface(100 + i))
    for name, count, (height, width) in (("pit", 6, (9, 9)), ("line", 2, (4, 30))):
        for i in range(count):
            image, mask = surface(10 * count + i), np.zeros((64, 64), np.uint8)
            mask[20 : 20 + height, 15 : 15 + width + i] = 255
            image[mask > 0] = 60
            save(root / "defects" / name / f"{i}.png", image)
            save(root / "defects" / name / f"{i}_mask.png", mask)
    return root


@pytest.fixture(autouse=True)
def small(filled_graphs, monkeypatch, tmp_path_factory):
    """A tiny model in the place of the bundled base, which takes a minute to build an engine of."""
    base = tmp_path_factory.mktemp("base")
    model = new_model(SIZES["tiny"], prediction_type="v_prediction")
    model.untrained = ()
    model.save(base / "model")
    monkeypatch.setattr("defectrt.training.bundled.BUNDLED_RUN", base)
    monkeypatch.setattr(module, "_SHOWN", 3)


def test_an_engine_a_plan_and_a_sheet(data, tmp_path, capfd):
    out = learn(data / "defects", data / "good", out=tmp_path / "e", steps=2, preview_every=0)
    told = capfd.readouterr().err
    assert "pit: 2 of 6" not in told
    assert "pit: 1 of 6 examples are held back" in told
    assert "line: all 2 are learned from" in told
    assert "warning: line: 2 examples; 5 to 10 are needed" in told
    assert "loss on what was held back" in told
    run = tmp_path / "e-run"
    plan = json.loads((run / PLAN).read_text())
    assert plan["held_out"] == ["pit/3.png"]
    assert set(plan["defect_types"]) == {"line", "pit"}
    assert Image.open(run / SHEET).size[1] > 4 * 160
    examples = read_examples(out)
    assert {name: len(own.masks()) for name, own in examples.items()} == {"pit": 6, "line": 2}
    words = ["synthesize", "--images", data / "good", "--engine", out, "--defect", "pit"]
    made = command_line(
        *words, "--min-change", "0.0001", "--refine", "none", "--out", tmp_path / "d"
    )
    assert made.returncode in (0, 7), made.stderr
    assert {r["masks"][0]["from"] for r in records(tmp_path / "d")} == {"examples"}


def test_the_same_call_goes_on_after_a_stop(data, tmp_path, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    options = {"steps": 2, "preview_every": 0, "quiet": True}
    with patch.object(module, "build", stopped), pytest.raises(KeyboardInterrupt):
        learn(data / "defects", data / "good", out=tmp_path / "e", **options)
    monkeypatch.setattr(module, "train", stopped)  # it is not trained again
    monkeypatch.setattr(module, "sheet", lambda rows: b"")
    learn(data / "defects", data / "good", out=tmp_path / "e", **options)
    assert (tmp_path / "e" / "engine.json").is_file()


def test_tuning_comes_last_and_goes_on_by_itself(data, tmp_path, monkeypatch):
    asked = []

    def tune_on(samples, out, config, *, quiet):
        asked.append((len(samples), out, config.engine, config.budget))
        if len(asked) == 1:
            raise KeyboardInterrupt
        (out / "tune.json").write_text('{"sentence": "The defaults stay."}')
        return out / "tune.json"

    monkeypatch.setattr(module, "tune_on", tune_on)
    monkeypatch.setattr(module, "sheet", lambda rows: b"")
    options = {"out": tmp_path / "e", "steps": 2, "preview_every": 0, "quiet": True, "tune": 3}
    with pytest.raises(KeyboardInterrupt):
        learn(data / "defects", data / "good", **options)
    monkeypatch.setattr(module, "build", None)  # it is not built again
    learn(data / "defects", data / "good", **options)
    assert asked == [(11, tmp_path / "e-run" / "tuned", tmp_path / "e", 3)] * 2


def test_one_folder_of_images_beside_masks_is_one_type(data, tmp_path):
    given = module._read(data / "defects" / "pit", data / "good", None, quiet=True)
    assert {sample.defect_type for sample in given.samples} == {"pit", "good"}


def test_masks_that_are_missing_are_proposed_and_said(data, tmp_path):
    shutil.copytree(data / "defects" / "pit", tmp_path / "pit")
    masks = [p for p in (tmp_path / "pit").iterdir() if p.name.endswith("_mask.png")]
    for mask in masks[1:]:
        mask.unlink()
    given = module._read(tmp_path, data / "good", None, quiet=True)
    assert given.remarks == {"pit": f", {len(masks) - 1} of {len(masks)} masks are proposed"}
    plan = module._plan(given, open_base(None), lora=False, steps=2, seed=0)
    assert f"pit, {len(masks) - 1} of {len(masks)} masks are proposed; look at them" in (
        plan.survey.warnings
    )


@pytest.mark.parametrize("layout", [None, "loco-classes"])
def test_logical_anomalies_are_learned_from_whole_images(tmp_path, capfd, layout):
    root = loco(tmp_path / "loco")
    out = learn(root, layout=layout, out=tmp_path / "e", steps=2, preview_every=0)
    told = capfd.readouterr().err
    assert "images are seen whole: what is missing or in the wrong place shows in no part" in told
    assert "images are neither mirrored nor turned: what lies where counts" in told
    assert "2 steps of 8 whole images" in told
    plan = json.loads((tmp_path / "e-run" / PLAN).read_text())
    assert plan["magnify"] == "fit"
    config = json.loads((tmp_path / "e-run" / "run.json").read_text())["config"]
    assert (config["magnify"], config["flip"], config["turn"]) == ("fit", "none", False)
    assert read_manifest(out).magnify == "fit"
    types = (
        ["logical_anomalies", "structural_anomalies"]
        if layout is None
        else ["broken_cable", "combined", "missing_cable"]
    )
    examples = read_examples(out)
    assert sorted(examples) == types
    assert all(own.whole and not own.strengths for own in examples.values())
    words = ["synthesize", "--images", root / "train" / "good", "--engine", out, "--refine", "none"]
    made = command_line(*words, "--min-change", "0.0001", "--out", tmp_path / "d")
    assert made.returncode in (0, 7), made.stderr
    for record in records(tmp_path / "d"):
        assert [tile["window"] for tile in record["tiles"]] == [{"y": -5, "x": 0, "side": 50}]


def read(path):
    return np.asarray(Image.open(path))


def test_arrays_pictures_and_paths_are_learned_from_as_a_folder_is(data, tmp_path):
    folder, out = data / "defects", tmp_path / "e"
    pits = [
        (read(folder / "pit" / f"{i}.png"), read(folder / "pit" / f"{i}_mask.png"))
        for i in range(6)
    ]
    lines = [
        (folder / "line" / "0.png", folder / "line" / "0_mask.png"),
        (Image.open(folder / "line" / "1.png"), read(folder / "line" / "1_mask.png") > 0),
    ]
    goods = [data / "good" / "0.png", read(data / "good" / "1.png"), surface(102)]
    options = {"steps": 2, "preview_every": 0, "quiet": True, "device": "cpu"}
    whole = module._read(folder, data / "good", None, quiet=True).samples
    given = module._read({"line": lines, "pit": pits}, goods, None, quiet=True).samples
    for one, other in zip(sorted(whole, key=of_type), sorted(given, key=of_type), strict=True):
        assert one.defect_type == other.defect_type
        np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_array_equal(one.mask, other.mask)
    listed = [(*pit, "pit") for pit in pits] + [(*line, "line") for line in lines]
    assert defectrt.learn(listed, goods, out=str(out), **options) == out
    assert {n: len(e.masks()) for n, e in read_examples(out).items()} == {"pit": 6, "line": 2}
    plan = json.loads((tmp_path / "e-run" / PLAN).read_text())
    assert plan["held_out"] == ["pit/3"]
    run = json.loads((tmp_path / "e-run" / "run.json").read_text())
    hashes = {entry["name"]: entry["sha256"] for entry in run["dataset"]}
    assert hashes["line/0.png"] == sha256_of(folder / "line" / "0.png")
    assert len(set(hashes.values())) == len(hashes) == 10


def of_type(sample):
    return sample.defect_type


def test_examples_without_a_type_are_called_defect(data):
    folder = data / "defects" / "pit"
    given = module._read(
        [(folder / "0.png", folder / "0_mask.png")], data / "good", None, quiet=True
    )
    assert {sample.defect_type for sample in given.samples} == {"defect", "good"}


PICTURE, MASK = np.zeros((8, 8), np.uint8), np.eye(8, dtype=bool)


@pytest.mark.parametrize(
    ("defects", "good", "said"),
    [
        ([PICTURE], [PICTURE], r"defects, defect 0: expected \(image, mask\) or"),
        ([(PICTURE, MASK, "good")], [PICTURE], "'good' cannot be the name of a type"),
        ({"a/b": [(PICTURE, MASK)]}, [PICTURE], "'a/b' cannot be the name of a type"),
        ([(PICTURE / 2, MASK)], [PICTURE], "defect 0: an image is an array of uint8 or uint16"),
        ([(PICTURE, MASK[1:])], [PICTURE], r"defect 0: the mask is \[7, 8\]"),
        ([(PICTURE, MASK)], ["none.png"], "none.png"),
        ([(PICTURE, MASK)], None, "defects: has no good images"),
        ([], [PICTURE], "defects: shows no defects"),
    ],
)
def test_what_no_examples_are(tmp_path, defects, good, said):
    with pytest.raises(InputError, match=said):
        learn(defects, good, out=tmp_path / "e")
    assert not list(tmp_path.glob("e*"))


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["none", "--good", "good"], 3, "none: no such folder of defects"),
        (["defects"], 3, "has no good images; give a folder of them with --good"),
        (["good", "--good", "good"], 3, "good"),
        (["defects", "--good", "good", "--out", "good"], 5, "already there; add --overwrite"),
        (["defects", "--good", "good", "--model", "blank"], 3, "never learned anything"),
    ],
)
def test_what_cannot_be_learned_from_is_said(data, tmp_path, monkeypatch, words, code, said):
    monkeypatch.chdir(data)
    if "blank" in words and not (data / "blank").exists():
        new_model(SIZES["tiny"]).save(data / "blank")
    out = [] if "--out" in words else ["--out", tmp_path / "e"]
    result = command_line("learn", *words, *out, "--steps", 1)
    assert result.returncode == code, result.stderr
    assert said in result.stderr.splitlines()[-1]


def test_the_base_that_ships_is_one_to_learn_from():
    assert open_model(BUNDLED_RUN / "model").untrained == ()
