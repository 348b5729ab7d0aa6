"""Choosing settings end to end at toy size: resumed, apart from the test side, written down."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from support.program import command_line

from defectrt.config.job import JobConfig
from defectrt.config.yaml import read_yaml
from defectrt.engines.loading import BUNDLED_ENGINE
from defectrt.errors import InputError
from defectrt.training.data.samples import Sample, given_defects, given_good
from defectrt.training.tuning import painting, search
from defectrt.training.tuning import tune as module
from defectrt.training.tuning.config import TuneConfig
from defectrt.training.tuning.settings import DEFAULTS, REAL, Setting, together, tried
from defectrt.training.tuning.tune import Bench, tune, tune_on

CONFIG = TuneConfig(
    engine=BUNDLED_ENGINE, budget=1e-6, steps=3, window=16, width=2, batch_size=4, pictures=2
)


def _picture(seed, *, bad):
    rng = np.random.default_rng(seed)
    image, mask = rng.normal(140, 6, (72, 72)), np.zeros((72, 72), bool)
    if bad:
        y, x = rng.integers(10, 50, 2)
        mask[y : y + 8, x : x + 8] = True
        image[mask] -= 70
    return np.clip(image, 0, 255).astype(np.uint8), mask


@pytest.fixture(scope="module")
def samples():
    defects = {"hole": [_picture(i, bad=True) for i in range(4)]}
    return given_defects(defects) + given_good([_picture(20 + i, bad=False)[0] for i in range(4)])


def test_each_half_has_of_every_type(samples, tmp_path):
    bench = Bench(samples, tmp_path, CONFIG)
    halves = [p["half"] for p in bench.record()["pictures"].values()]
    assert halves[:4].count(0) == halves[4:].count(0) == 2


def test_one_workpiece_alone_cannot_be_divided(samples, tmp_path):
    with pytest.raises(InputError, match="hole: pictures of 2 workpieces"):
        Bench(samples[:1] + samples[4:], tmp_path, CONFIG)


def test_changes_of_the_same_thing_do_not_go_together():
    one, other = Setting(share=0.25), Setting(label="mask")
    assert together(one, other) == Setting(share=0.25, label="mask")
    assert together(one, Setting(share=0.75)) is None


def test_without_examples_in_the_engine_nothing_of_theirs_is_tried():
    found = tried({}, healthy=False)
    assert all(not s.painting for s in found)
    assert not any(s.healthy for s in found)
    assert any(s.healthy for s in tried({}, healthy=True))
    assert len({s.name for s in [DEFAULTS, REAL, *found]}) == len(found) + 2


@pytest.mark.slow
def test_held_out_examples_are_scored_by_who_has_not_seen_them(samples, tmp_path, monkeypatch):
    fed = []

    def watched(diet, config, seed, **how):
        fed.append((diet, seed))
        return train(diet, config, seed, **how)

    train = module.train_on
    monkeypatch.setattr(module, "train_on", watched)
    monkeypatch.setattr(
        module, "paint", lambda options, own, *_, **__: [painting.Painted(own[0], own[1])] * 2
    )
    bench = Bench(samples, tmp_path, CONFIG)
    for setting in (REAL, Setting(label="mask")):
        bench.score(setting, 7)
    (one, s0), (two, s1), (made, s2), (_, s3) = sorted(fed[:2], key=lambda f: f[1]) + sorted(
        fed[2:], key=lambda f: f[1]
    )
    paths = [{s.path.name for s in diet.real} for diet in (one, two)]
    assert not paths[0] & paths[1]
    assert len(paths[0] | paths[1]) == 4
    assert (s0, s1) == (s2, s3)  # the same crops in every setting
    assert {s.path.name for s in made.real} == paths[0]
    assert not one.made
    assert len(made.made) == 2
    assert all(isinstance(s, Sample) and s.mask.any() for s in made.made)


@pytest.mark.slow
def test_tuned_resumed_and_written_down(samples, tmp_path, monkeypatch):
    out = tmp_path / "tuned"
    tune_on(samples, out, CONFIG, quiet=True)
    first = (out / "runs.jsonl").read_bytes()
    assert len(first.splitlines()) == 1
    body = json.loads((out / "tune.json").read_text())
    assert body["sentence"].startswith("The defaults stay")
    assert body["better_than_defaults"] is False
    assert {"share 0.25", "the mask as label"} <= set(body["untried"])

    monkeypatch.setattr(painting, "_paint", None)  # what was painted is kept
    monkeypatch.setattr(search, "_ROUNDS", 1)
    monkeypatch.setattr(search, "_CONFIRMING", 2)
    more = CONFIG.replace(budget=1)
    path = tune_on(samples, out, more, quiet=True)
    lines = (out / "runs.jsonl").read_bytes()
    assert lines.startswith(first)
    body = json.loads(path.read_text())
    assert body["seconds"] <= 60
    assert body["chosen_over_real"]["runs"] == 2
    assert [t["name"] for t in body["trials"]][:2] == ["defaults", "real alone"]
    assert len(lines.splitlines()) > 2
    job = JobConfig(images=tmp_path, **read_yaml(out / "synthesize.yaml"))
    assert job.engine == BUNDLED_ENGINE.resolve()
    page = (out / "tune.html").read_text()
    assert body["sentence"].replace("'", "&#x27;") in page
    assert "://" not in page

    tune_on(samples, out, more, quiet=True)  # nothing is scored again
    assert (out / "runs.jsonl").read_bytes() == lines


@pytest.mark.slow
def test_what_the_engine_has_not_learned_from_is_never_read(tmp_path, monkeypatch):
    names = []
    for i in range(6):
        image, mask = _picture(i, bad=True)
        (tmp_path / "hole").mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / "hole" / f"{i}.bmp")
        Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / "hole" / f"{i}.png")
    learned = [s.sha256() for s in module.read_real(tmp_path) if s.path.stem in "0123"]
    manifest = module.read_manifest(BUNDLED_ENGINE)
    dataset = [{"defect_type": "hole", "sha256": h} for h in learned]
    entries = [type("Entry", (), entry) for entry in dataset]
    known = manifest.model_copy(
        update={"provenance": manifest.provenance.model_copy(update={"dataset": entries})}
    )
    monkeypatch.setattr(module, "read_manifest", lambda path: known)
    monkeypatch.setattr(module, "tune_on", lambda samples, *_, **__: names.extend(samples))
    tune(tmp_path, tmp_path / "out", CONFIG, quiet=True)
    assert sorted(s.path.stem for s in names) == ["0", "1", "2", "3"]


@pytest.mark.slow
def test_the_command_refuses_a_test_side(tmp_path):
    words = ["prove", tmp_path, "--good", tmp_path, "--engine", BUNDLED_ENGINE, "--tune", "1"]
    result = command_line(*words, "--held-out", tmp_path, "--out", tmp_path / "out")
    assert result.returncode != 0
    assert "--tune: not with --held-out" in result.stderr
