"""One job of several types: who makes what, how it grows, and where it goes."""

from __future__ import annotations

import json
import shutil
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from support.fake_engine import FakeEngine
from support.outputs import dataset_of, records, save
from support.program import command_line

from defectrt.errors import Cancelled, InputError, OutputError, UsageError
from defectrt.images.reading import read_image
from defectrt.synthesis.job import synthesize

pytestmark = pytest.mark.slow

TYPES = ["crack", "hole", "spot"]


@pytest.fixture
def engine(fake_engine, opened_as):
    """One that makes several types; returns its directory."""
    opened_as(FakeEngine(defect_types=TYPES))
    return fake_engine[0]


@pytest.fixture
def good(tmp_path):
    """Eight good images."""
    rng = np.random.default_rng(0)
    for i in range(8):
        save(tmp_path / "good" / f"{i}.png", rng.integers(140, 160, (60, 70), np.uint8))
    return tmp_path / "good"


@pytest.fixture
def make(engine, good, tmp_path):
    """Run a job on the good images; returns its folder and its summary."""

    def run(name, defect=(), **options):
        options = {"engine": engine, "refine": "none", "quiet": True} | options
        summary = synthesize(good, tmp_path / name, defect=defect, **options)
        return tmp_path / name, summary

    return run


def files_of(out, defect):
    """The samples' files of one type, byte for byte."""
    return {name: data for name, data in dataset_of(out).items() if f"/{defect}/" in name}


def test_shares_of_one_job_are_in_the_manifest_the_summary_and_the_report(make):
    out, summary = make("out", "crack=3,hole=1")
    assert Counter(r["defect"] for r in records(out)) == {"crack": 6, "hole": 2}
    for r in records(out):
        assert f"/{r['defect']}/" in r["image"]
        assert {m["shape"] for m in r["masks"]} == {r["defect"]}
    assert summary.by_type == {
        name: dict.fromkeys(("requested", "placed", "generated", "kept"), n)
        for name, n in (("crack", 6), ("hole", 2))
    }
    assert json.loads((out / "job.json").read_text())["defect"] == [{"crack": 3, "hole": 1}]


def test_without_a_type_all_take_turns(make):
    out, _ = make("out", count=3)
    assert Counter(r["defect"] for r in records(out)) == dict.fromkeys(TYPES, 8)
    assert len({(r["source"], r["defect"]) for r in records(out)}) == 24


def test_every_sample_is_what_a_job_of_its_type_alone_makes(make):
    several = files_of(make("several", count=2)[0], "crack")
    alone = files_of(make("alone", "crack", count=2)[0], "crack")
    assert several.items() < alone.items()


def test_a_second_run_adds_a_type_and_leaves_the_others_as_they_are(make, capsys):
    out, _ = make("out", "crack")
    before = files_of(out, "crack")
    _, summary = make("out", "hole", quiet=False)
    assert "out holds what was asked for so far: crack and hole" in capsys.readouterr().err
    assert (summary.requested, summary.kept, summary.made) == (16, 16, 8)
    assert files_of(out, "crack") == before
    assert files_of(out, "hole") == files_of(make("holes", "hole")[0], "hole")
    _, again = make("out", "crack")
    assert (again.kept, again.made) == (16, 0)


def test_the_order_in_which_types_were_added_does_not_matter(make):
    asked = ["crack", "hole=2,spot", "crack,hole"]
    for defect in asked:
        make("one", defect)
    for defect in reversed(asked):
        make("two", defect)
    assert dataset_of(make("one", "crack")[0]) == dataset_of(make("two", "crack")[0])


@pytest.mark.parametrize(
    ("change", "said"),
    [({"seed": 3}, "seed: 0 -> 3"), ({"shape": "blob"}, "masks: "), ({"count": 2}, "count: 1 -> ")],
    ids=str,
)
def test_nothing_but_the_types_may_grow(make, change, said):
    out, _ = make("out", "crack")
    before = dataset_of(out)
    with pytest.raises(InputError, match=f"was started as another job .*{said}"):
        make("out", "hole", **change)
    _, summary = make("out", "crack")
    assert (summary.requested, summary.made) == (8, 0)
    assert dataset_of(out) == before


def test_a_job_that_was_stopped_before_a_type_was_added_is_finished_with_it(make, monkeypatch):
    whole, _ = make("whole", "crack")
    make("whole", "hole")
    step, calls = FakeEngine.step, []

    def stop(self, rows):
        calls.append(1)
        if len(calls) == 5:
            raise Cancelled("stopped")
        return step(self, rows)

    with monkeypatch.context() as patch:
        patch.setattr(FakeEngine, "step", stop)
        with pytest.raises(Cancelled):
            make("out", "crack")
    out, summary = make("out", "hole")
    assert summary.kept == summary.requested == 16
    assert dataset_of(out) == dataset_of(whole)


def test_redo_makes_the_samples_of_every_type_again(make, good):
    make("out", "crack")
    out, _ = make("out", "hole")
    save(good / "3.png", np.full((60, 70), 100, np.uint8))
    with pytest.raises(InputError, match=r"3.png: changed since samples were made"):
        make("out", "hole")
    _, summary = make("out", "hole", redo=True)
    assert (summary.made, summary.kept) == (2, 16)
    assert {r["defect"] for r in records(out) if r["source"] == "3.png"} == {"crack", "hole"}


def test_the_images_are_all_it_needs(engine, good, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["synthesize", "--images", "good/", "--engine", engine, "--refine", "none"]
    made = command_line(*words)
    assert made.returncode == 0, made.stderr
    assert made.stdout.startswith("good-defects: 8 requested, 8 placed")
    assert "\n  crack: 3 requested, 3 placed, 3 generated, 3 kept\n" in made.stdout
    assert len(records(tmp_path / "good-defects")) == 8
    again = command_line(*words)
    assert "8 generated (0 now)" in again.stdout
    other = command_line(*words, "--seed", 1)
    assert other.returncode == 3
    assert "good-defects: was started as another job (seed: 0 -> 1)" in other.stderr
    synthesize(tmp_path / "good", tmp_path / "python", engine=engine, refine="none", quiet=True)
    assert dataset_of(tmp_path / "python") == dataset_of(tmp_path / "good-defects")


def test_it_is_never_written_over_something_else(engine, good, tmp_path):
    (tmp_path / "good-defects").mkdir()
    (tmp_path / "good-defects" / "mine.txt").write_text("precious")
    with pytest.raises(OutputError, match=r"good-defects: not empty and not a job's folder"):
        synthesize(good, engine=engine, quiet=True)
    assert [path.name for path in (tmp_path / "good-defects").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("images", [".", "../good"])
def test_a_folder_by_another_name_is_beside_itself(engine, good, tmp_path, monkeypatch, images):
    monkeypatch.chdir(good)
    assert synthesize(images, engine=engine, refine="none", quiet=True).kept == 8
    assert len(records(tmp_path / "good-defects")) == 8


def test_a_folder_with_nothing_beside_it_needs_a_name(engine):
    with pytest.raises(UsageError, match="/: nothing lies beside it; give --out"):
        synthesize("/", engine=engine, quiet=True)


def test_one_image_is_enough(make, engine, good, tmp_path):
    whole, _ = make("whole", "crack")
    summary = synthesize(good / "3.png", engine=engine, refine="none", defect="crack", quiet=True)
    assert summary.kept == 1
    (made,) = records(tmp_path / "good" / "3-defects")
    (same,) = [r for r in records(whole) if r["source"] == "3.png"]
    assert made["seed"] == same["seed"]
    image, other = tmp_path / "good" / "3-defects" / made["image"], whole / same["image"]
    assert image.read_bytes() == other.read_bytes()
    again = synthesize(good / "3.png", engine=engine, refine="none", defect="crack", quiet=True)
    assert (again.kept, again.made) == (1, 0)
    save(good / "3.png", np.full((60, 70), 100, np.uint8))
    with pytest.raises(InputError, match=r"3.png: changed since"):
        synthesize(good / "3.png", engine=engine, refine="none", defect="crack", quiet=True)


def test_images_in_memory_are_made_as_those_of_a_folder(make, engine, good, tmp_path):
    deep = np.random.default_rng(3).integers(30_000, 40_000, (50, 60, 3)).astype(np.uint16)
    pictures = [good / "3.png", deep, Image.open(good / "5.png")]

    def run(out, **options):
        return synthesize(
            pictures, tmp_path / out, engine=engine, refine="none", quiet=True, **options
        )

    assert run("out", defect="crack").kept == 3
    told = {r["source"]: r for r in records(tmp_path / "out")}
    assert set(told) == {"3.png", "000001.png", "000002.png"}
    kept = read_image(tmp_path / "out" / told["000001.png"]["good"])
    np.testing.assert_array_equal(kept, deep)
    (same,) = [r for r in records(make("whole", "crack")[0]) if r["source"] == "3.png"]
    image, other = tmp_path / "out" / told["3.png"]["image"], tmp_path / "whole" / same["image"]
    assert image.read_bytes() == other.read_bytes()
    assert run("out", defect="crack").made == 0
    pictures[1] = deep + 1
    with pytest.raises(InputError, match=r"000001.png: changed since samples were made"):
        run("out", defect="crack")
    assert run("out", defect="crack", redo=True).made == 1


@pytest.mark.parametrize(
    ("images", "options", "error", "said"),
    [
        ([np.zeros((4, 4), np.uint8)], {}, UsageError, "nothing lies beside images in memory"),
        ([np.zeros((4, 4))], {"out": "out"}, InputError, "image 0: an image is an array of uint8"),
        (["a/0.png", "b/0.png"], {"out": "out"}, UsageError, "two images are called 0.png"),
        (["a/0.webp"], {"out": "out"}, InputError, "0.webp: not called like an image"),
        ([], {"out": "out"}, InputError, "the list is empty"),
    ],
)
def test_what_no_images_in_memory_are(engine, tmp_path, monkeypatch, images, options, error, said):
    monkeypatch.chdir(tmp_path)
    for name in ("a/0.png", "b/0.png", "a/0.webp"):
        save(tmp_path / name, np.full((20, 20), 9, np.uint8))
    with pytest.raises(error, match=said):
        synthesize(images, engine=engine, quiet=True, **options)
    assert not (tmp_path / "out").exists()


def test_a_journal_of_one_folder_is_no_image_of_the_next(make, engine, good, tmp_path):
    out, _ = make("good/first", "crack")
    shutil.move(out, tmp_path / "good" / "moved")
    (tmp_path / "good" / "moved" / "job.sqlite").unlink()  # as a merged one
    _, summary = make("again", "crack")
    assert summary.requested == 8
