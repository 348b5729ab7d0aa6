"""The job on an engine without a network: layout, bit-identity, independence, bad input."""

from __future__ import annotations

import json
import os
import signal

import numpy as np
import pytest
from conftest import FakeEngine, save

from defectrt.errors import (
    Cancelled,
    EngineError,
    InputError,
    NothingDoneError,
    OutputError,
    PartialError,
    UsageError,
)
from defectrt.images import feather, read_picture
from defectrt.masks import read_mask
from defectrt.synthesize import Job, synthesize


def records(out):
    return [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]


def tree(out):
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}


def without_times(files):
    """Everything but how long it took."""
    lines = files.pop("manifest.jsonl").decode().splitlines()
    for line in lines:
        record = json.loads(line)
        record.pop("seconds")
        files[f"line {record['source']} {record['sample']}"] = record
    return files


@pytest.fixture
def go(parts, fake_engine, tmp_path):
    images, masks = parts

    def run(name="out", job=None, **options):
        out = tmp_path / name
        job = job or Job()
        return out, synthesize(
            images, out, job, engine=fake_engine[0], masks=masks, quiet=True, **options
        )

    return run


def test_layout(go):
    out, summary = go(category="plate")
    assert (summary.requested, summary.kept, summary.empty, summary.skipped) == (3, 3, [], [])
    expected = {"manifest.jsonl", "job.json"}
    for i in range(3):
        expected |= {
            f"plate/train/good/{i:03}.png",
            f"plate/test/spot/{i:03}.png",
            f"plate/ground_truth/spot/{i:03}_mask.png",
        }
    assert tree(out).keys() == expected
    summary.check()


@pytest.mark.parametrize("blend", ["residual", "decoded"])
@pytest.mark.parametrize("background", ["replay", "dual"])
def test_outside_the_band_every_pixel_is_the_sources(go, parts, blend, background):
    images, masks = parts
    out, _ = go(job=Job(blend=blend, background=background, count=2))
    assert len(records(out)) == 6
    for r in records(out):
        source, result = read_picture(images / r["source"]), read_picture(out / r["image"])
        assert result.dtype == source.dtype
        assert result.shape == source.shape
        mask = read_mask(masks / r["mask"], source.shape[:2])
        outside = feather(mask, 2, 4) == 0
        np.testing.assert_array_equal(result[outside], source[outside])
        assert r["changed_outside_band"] == 0
        darker = source[mask].mean() - result[mask].mean()
        assert darker > 0.3 * np.iinfo(source.dtype).max


def test_good_pictures_are_kept_bit_for_bit(go, parts):
    out, _ = go()
    for i in range(3):
        np.testing.assert_array_equal(
            read_picture(out / f"parts/train/good/00{i}.png"), read_picture(parts[0] / f"{i}.png")
        )


def test_labels_are_binary_and_inside_the_mask(go, parts):
    out, _ = go()
    for r in records(out):
        label = read_picture(out / r["label"])
        assert label.dtype == np.uint8
        assert set(np.unique(label)) == {0, 255}
        mask = read_mask(parts[1] / r["mask"], label.shape[:2])
        assert not label[..., 0][~mask].any()
        assert r["refined_area"] == (label > 0).sum()
        assert r["mask_area"] == mask.sum()


def test_replay_does_not_touch_the_background_latent(go):
    replay, _ = go("a", Job(background="replay"))
    dual, _ = go("b", Job(background="dual"))
    assert all(r["latent_outside_error"] == 0 for r in records(replay))
    assert all(r["latent_outside_error"] >= 0 for r in records(dual))


@pytest.mark.parametrize("change", [{"batch": 1}, {"batch": 2}, {"batch": 8}])
def test_a_result_does_not_depend_on_the_batch(go, change):
    one, _ = go("a", Job(count=2))
    two, _ = go("b", Job(count=2, **change))
    a, b = without_times(tree(one)), without_times(tree(two))
    a.pop("job.json"), b.pop("job.json")
    assert a == b


def test_a_result_does_not_depend_on_the_other_pictures(go, parts):
    one, _ = go("a")
    (parts[0] / "0.png").unlink()
    two, _ = go("b")
    for r in records(two):
        other = next(o for o in records(one) if o["source"] == r["source"])
        np.testing.assert_array_equal(
            read_picture(two / r["image"]), read_picture(one / other["image"])
        )


def test_seed_and_sample_decide_the_noise(go, monkeypatch):
    from defectrt import synthesize as module

    seen = []
    real = module.normal
    monkeypatch.setattr(module, "normal", lambda *a: seen.append(a[:3]) or real(*a))
    go("a", Job(count=2, seed=5))
    assert len(set(seen)) == 6
    assert {s[0] for s in seen} == {5}
    assert {s[2] for s in seen} == {0, 1}


def test_a_defect_that_does_not_appear_is_not_a_sample(go, fake_engine):
    fake_engine[1].blind = True
    fake_engine[1].level = 0.2  # the colour of the parts
    out, summary = go()
    assert summary.kept == 0
    assert len(summary.empty) == 3
    assert not (out / "parts" / "test").exists()
    with pytest.raises(NothingDoneError, match=r"0 of 3 samples were made[\s\S]*0.png: no defect"):
        summary.check()


def test_bad_pictures_are_skipped_and_listed_and_the_rest_goes_on(go, parts):
    images, masks = parts
    (images / "a_empty.png").write_bytes(b"")
    (images / "b_cut.png").write_bytes((images / "0.png").read_bytes()[:300])
    save(images / "c_nomask.png", np.full((40, 40), 99, np.uint8))
    save(images / "d_size.png", np.full((40, 40), 99, np.uint8))
    save(masks / "d_size.png", np.full((41, 40), 255, np.uint8))
    save(images / "e_blank.png", np.full((40, 40), 99, np.uint8))
    save(masks / "e_blank.png", np.zeros((40, 40), np.uint8))
    (images / "notes.txt").write_text("not a picture, and not meant as one")
    _, summary = go()
    assert summary.kept == 3
    assert summary.requested == 8
    text = "\n".join(summary.skipped)
    assert len(summary.skipped) == 5
    for part in (
        "a_empty.png: the file is empty",
        "b_cut.png: damaged or truncated",
        "c_nomask.png: no mask",
        "d_size.png: the mask is 40x41, its picture 40x40",
        "e_blank.png: the mask is empty",
    ):
        assert part in text
    with pytest.raises(PartialError, match="3 of 8 samples were made"):
        summary.check()


def test_folders_that_are_not_there(parts, fake_engine, tmp_path):
    images, masks = parts
    none, out, engine = tmp_path / "none", tmp_path / "o", fake_engine[0]
    with pytest.raises(InputError, match="none: no such folder of pictures"):
        synthesize(none, out, engine=engine, masks=masks, quiet=True)
    with pytest.raises(InputError, match="none: no such folder of masks"):
        synthesize(images, out, engine=engine, masks=none, quiet=True)
    with pytest.raises(InputError, match="holds no pictures"):
        synthesize(engine, out, engine=engine, masks=masks, quiet=True)
    assert not out.exists()


def test_an_engine_that_is_not_one(parts, tmp_path):
    with pytest.raises(EngineError, match="no such engine directory"):
        synthesize(parts[0], tmp_path / "o", engine=tmp_path / "none", quiet=True)
    with pytest.raises(EngineError, match=r"engine.json cannot be read"):
        synthesize(parts[0], tmp_path / "o", engine=parts[0], quiet=True)


def test_without_masks_they_are_drawn_from_the_seed_and_the_name(go, parts, fake_engine, tmp_path):
    images, engine = parts[0], fake_engine[0]
    outs = [tmp_path / name for name in "abc"]
    for out, seed in zip(outs, (1, 1, 2), strict=True):
        summary = synthesize(images, out, Job(seed=seed), engine=engine, quiet=True)
        assert summary.kept == 3
    one, same, other = ([read_picture(o / r["label"]) for r in records(o)] for o in outs)
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert {r["mask"] for r in records(outs[0])} == {"drawn"}


def test_output_that_cannot_be_written(go, tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match="cannot be written"):
        go("out")
    with pytest.raises(OutputError, match="cannot be written"):
        go("out/below")


def test_an_output_that_is_not_empty_is_refused(go, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("precious")
    with pytest.raises(OutputError, match="not empty; add --resume"):
        go("out")
    assert (tmp_path / "out" / "mine.txt").read_text() == "precious"


def test_steps_and_defects_that_the_engine_does_not_have(go):
    with pytest.raises(UsageError, match="no schedule of 7 steps; it has: 2, 4"):
        go(job=Job(steps=7))
    with pytest.raises(UsageError, match="no defect is named 'rust'; this engine makes: spot"):
        go(job=Job(defect="rust"))


def test_all_impossible_options_at_once():
    with pytest.raises(InputError, match=r"count.*batch.*grow.*background.*blend"):
        Job(count=0, batch=0, grow=-1, background="x", blend="y")


def test_ctrl_c_finishes_the_batch_and_resume_ends_the_same(go, monkeypatch):
    whole, _ = go("whole", Job(batch=1, count=2))
    step, calls = FakeEngine.step, []

    def interrupt(self, rows):
        calls.append(1)
        if len(calls) == 9:  # in the middle of the second picture
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, rows)

    monkeypatch.setattr(FakeEngine, "step", interrupt)
    with pytest.raises(Cancelled, match="stopped after 2 of 3 pictures; go on with --resume"):
        go("out", Job(batch=1, count=2))
    monkeypatch.setattr(FakeEngine, "step", step)
    out, summary = go("out", Job(batch=1, count=2), resume=True)
    assert summary.kept == 6
    assert without_times(tree(out)) == without_times(tree(whole))


@pytest.mark.parametrize("kill_at", [1, 3, 4, 7, 10])
def test_a_killed_job_resumes_to_the_same_files(go, monkeypatch, kill_at):
    from defectrt.dataset import Dataset

    whole, _ = go("whole", Job(batch=1, count=2))
    write, calls = Dataset._write, []

    def die(self, path, data):
        calls.append(1)
        if len(calls) == kill_at:
            path.with_name(f".{path.name}.99").parent.mkdir(parents=True, exist_ok=True)
            raise KeyboardInterrupt
        write(self, path, data)

    monkeypatch.setattr(Dataset, "_write", die)
    with pytest.raises(KeyboardInterrupt):
        go("out", Job(batch=1, count=2))
    monkeypatch.setattr(Dataset, "_write", write)
    out, summary = go("out", Job(batch=1, count=2), resume=True)
    assert summary.kept == 6
    assert without_times(tree(out)) == without_times(tree(whole))


def test_a_manifest_line_that_was_cut_off_is_made_again(go):
    out, _ = go()
    manifest = out / "manifest.jsonl"
    whole = without_times(tree(out))
    manifest.write_text(manifest.read_text()[:-20])
    _, summary = go(resume=True)
    assert summary.kept == 3
    assert without_times(tree(out)) == whole


def test_another_job_is_not_continued(go):
    go()
    with pytest.raises(InputError, match=r"started as another job \(seed: 0 -> 1\)"):
        go(job=Job(seed=1), resume=True)


def test_a_full_disk_is_said_and_nothing_is_lost(go, monkeypatch):
    from pathlib import Path

    write, calls = Path.write_bytes, []

    def full(self, data):
        calls.append(1)
        if len(calls) == 6:
            raise OSError(28, "No space left on device")
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match=r"No space left on device.*--resume"):
        go("out", Job(batch=1))
    monkeypatch.undo()
