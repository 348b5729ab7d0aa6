"""Datasets joined: every sample once, numbered anew, ids of one list, whole or not at all."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from pycocotools.coco import COCO
from support.outputs import records, save, tree, write_folder
from support.program import command_line

from defectrt.errors import InputError, OutputError, UsageError
from defectrt.images.reading import read_image
from defectrt.output.formats import finish
from defectrt.output.merge import merge
from defectrt.synthesis.job import synthesize


def sample(seed, defect="hole", good=None):
    """One sample: its good image (seed ``good``), its result, label, mask and record."""
    part = np.random.default_rng(seed if good is None else good).integers(0, 255, (20, 24, 1), "u1")
    label = np.zeros((20, 24), bool)
    label[4 + seed % 8 :, 5:9] = True
    image = np.where(label[..., None], np.uint8(seed), part)
    record = {"source": f"{seed}.png", "sample": 0, "defect": defect, "seed": seed}
    return part, image, label, np.ones((20, 24), bool), record


@pytest.fixture
def two(tmp_path):
    """Two datasets of 7 and 5 samples, of engines whose types differ in part."""
    a = [sample(i, "hole" if i % 2 else "crack") for i in range(7)]
    b = [sample(20 + i, "hole" if i % 2 else "stain") for i in range(5)]
    failed = [{"source": "x.png", "sample": 0, "defect": "stain", "reason": "none"}]
    one = write_folder(tmp_path / "a", ["crack", "hole"], a)
    return one, write_folder(tmp_path / "b", ["stain", "hole"], b, failed=failed)


def test_every_sample_is_there_once_with_its_files(two, tmp_path):
    before = [tree(folder) for folder in two]
    assert merge(two, tmp_path / "c") == 12
    found = records(tmp_path / "c")
    sources = [r["source"] for r in found]
    assert Counter(sources) == Counter(r["source"] for folder in two for r in records(folder))
    assert sorted(r["image"][-7:] for r in found) == [f"{i:03}.png" for i in range(12)]
    for folder in two:
        for was in records(folder):
            (now,) = [r for r in found if r["source"] == was["source"]]
            for key in ("image", "label", "good", "mask"):
                assert (tmp_path / "c" / now[key]).read_bytes() == (folder / was[key]).read_bytes()
            assert now["seed"] == was["seed"]
            assert f"/{was['defect']}/" in now["image"]
    assert len(list((tmp_path / "c").rglob("good/*.png"))) == 12
    assert len(list((tmp_path / "c/plate/test/good").iterdir())) == 2
    assert (tmp_path / "c" / "failed.jsonl").read_text() == (two[1] / "failed.jsonl").read_text()
    assert [tree(folder) for folder in two] == before


def test_ids_and_names_are_unique_in_every_format(two, tmp_path):
    out = tmp_path / "c"
    merge(two, out, formats=("mvtec", "coco", "yolo"))
    names, ids = [], []
    for part in ("train", "val"):
        coco = COCO(out / "coco" / f"instances_{part}.json")
        assert [c["name"] for c in coco.loadCats([1, 2, 3])] == ["crack", "hole", "stain"]
        for entry in coco.loadImgs(coco.getImgIds()):
            names.append(entry["file_name"])
            ids.append(entry["id"])
            for a in coco.loadAnns(coco.getAnnIds(imgIds=entry["id"])):
                assert f"/{coco.cats[a['category_id']]['name']}/" in entry["file_name"]
                ids.append(a["id"])
    assert len(set(names)) == len(names) == 24
    assert len(set(ids)) == len(ids)
    data = yaml.safe_load((out / "yolo" / "data.yaml").read_text())
    assert data["names"] == {0: "crack", 1: "hole", 2: "stain"}
    assert len(list((out / "yolo").glob("labels/*/*.txt"))) == 24
    assert (out / "report.html").is_file()
    assert yaml.safe_load((out / "folder.yaml").read_text())["init_args"]["abnormal_dir"] == [
        f"test/{name}" for name in ("crack", "hole", "stain")
    ]


def test_what_is_there_twice_is_taken_once(tmp_path):
    shared = [sample(1), sample(2)]
    one = write_folder(tmp_path / "a", ["hole"], shared)
    two = write_folder(tmp_path / "b", ["hole"], [*shared, sample(3, good=1)])
    assert merge([one, two], tmp_path / "c") == 3
    found = records(tmp_path / "c")
    assert len({r["image"] for r in found}) == 3
    assert len({r["good"] for r in found}) == 2
    by_source = {r["source"]: r["good"] for r in found}
    assert by_source["1.png"] == by_source["3.png"]


def test_a_merged_dataset_can_be_merged_again(two, tmp_path):
    merge(two, tmp_path / "c")
    third = write_folder(tmp_path / "d", ["crack"], [sample(50, "crack")])
    assert merge([tmp_path / "c", third], tmp_path / "e") == 13
    job = json.loads((tmp_path / "e" / "job.json").read_text())
    assert job["defect_types"] == ["crack", "hole", "stain"]
    assert len(job["merged"][0]["merged"]) == 2


def test_jobs_of_one_engine_are_merged_on_the_command_line(fake_engine, tmp_path):
    for i in range(6):
        rng = np.random.default_rng(i)
        save(tmp_path / "good" / f"{i}.png", rng.integers(140, 160, (50, 60), "u1"))
    for seed in (0, 1):
        options = {"engine": fake_engine[0], "seed": seed, "refine": "none", "quiet": True}
        synthesize(tmp_path / "good", tmp_path / str(seed), **options)
    words = ["merge", tmp_path / "0", tmp_path / "1", "--out", tmp_path / "c", "--format", "coco"]
    made = command_line(*words)
    assert made.returncode == 0, made.stderr
    assert made.stdout == f"{tmp_path / 'c'}: 12 samples of 2 datasets\n"
    found = records(tmp_path / "c")
    assert len({r["good"] for r in found}) == 6
    for r in found:
        good, image = (read_image(tmp_path / "c" / r[key]) for key in ("good", "image"))
        assert (good != image).sum() == r["changed_area"]
    assert (tmp_path / "c" / "coco" / "instances_train.json").is_file()
    again = command_line(*words)
    assert again.returncode == 5
    assert "not empty; choose another --out" in again.stderr


def test_categories_have_to_be_one(two, tmp_path):
    job = json.loads((two[1] / "job.json").read_text())
    (two[1] / "job.json").write_text(json.dumps(job | {"category": "cup"}))
    with pytest.raises(
        UsageError, match=r"categories differ \(plate, cup\); choose one with --cat"
    ):
        merge(two, tmp_path / "c")
    with pytest.raises(UsageError, match=r"'\.\./up' cannot be the name of a folder"):
        merge(two, tmp_path / "c", category="../up")
    assert not (tmp_path / "c").exists()
    assert merge(two, tmp_path / "c", category="both") == 12
    assert {r["image"].split("/")[0] for r in records(tmp_path / "c")} == {"both"}


def test_what_cannot_be_merged(two, tmp_path):
    for folders in ([two[0]], [two[0], two[0]], [two[0], tmp_path / "x" / ".." / "a"], []):
        with pytest.raises(UsageError, match="give two or more folders, each once"):
            merge(folders, tmp_path / "c")
    with pytest.raises(InputError, match=r"none: not the output of a job"):
        merge([two[0], tmp_path / "none"], tmp_path / "c")
    (two[1] / records(two[1])[2]["good"]).unlink()
    with pytest.raises(InputError, match=r"good/\d+.png: cannot be read"):
        merge(two, tmp_path / "c")
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("there", ["file", "folder"])
def test_nothing_is_written_over(two, tmp_path, there):
    out = tmp_path / "c"
    (out if there == "file" else out / "mine.txt").parent.mkdir(exist_ok=True)
    (out if there == "file" else out / "mine.txt").write_text("precious")
    with pytest.raises(OutputError, match="c: not empty; choose another --out"):
        merge(two, out)
    assert "precious" in [p.read_text() for p in (out, out / "mine.txt") if p.is_file()]


def test_a_disk_that_fails_leaves_nothing_half(two, tmp_path, monkeypatch):
    def full(out, formats, splitting):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("defectrt.output.merge.finish", full)
    with pytest.raises(OutputError, match=r"c: cannot be written .*run the same command again"):
        merge(two, tmp_path / "c")
    assert sorted(Path(tmp_path).iterdir()) == [tmp_path / "a", tmp_path / "b"]


def test_formats_can_be_added_later_and_are_the_same(two, tmp_path):
    merge(two, tmp_path / "c", formats=("coco",))
    merge(two, tmp_path / "d")
    finish(tmp_path / "d", ["coco"])
    assert tree(tmp_path / "c") == tree(tmp_path / "d")
