"""The output folder: what is there is whole, a stopped job goes on, another job does not."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pytest
from conftest import FakeEngine, records, tree, without_times

from defectrt import dataset as dataset_module
from defectrt.dataset import Dataset
from defectrt.errors import Cancelled, InputError, OutputError, UsageError
from defectrt.images import read_picture
from defectrt.job import Job

PICTURE = np.full((4, 5, 3), 7, np.uint8)
LABEL = np.eye(4, 5, dtype=bool)


def opened(out, job=None, *, category="parts", defect="spot", resume=False):
    return Dataset(out, category, defect, job or {"seed": 0}, resume=resume)


def add(dataset, source, sample=0):
    name = f"{source[0]}{sample}"
    dataset.keep(*dataset.write(name, PICTURE, LABEL), {"source": source, "sample": sample})


def test_what_is_written(tmp_path):
    dataset = opened(tmp_path / "out")
    dataset.add_good(0, "a0", PICTURE)
    add(dataset, "a.png")
    dataset.drop({"source": "b.png", "sample": 0}, "no defect appeared")
    assert dataset.kept == {("a.png", 0)}
    assert dataset.dropped == {("b.png", 0): "no defect appeared"}
    assert ("b.png", 0) in dataset
    assert ("a.png", 1) not in dataset
    base = tmp_path / "out" / "parts"
    np.testing.assert_array_equal(read_picture(base / "train/good/a0.png"), PICTURE)
    np.testing.assert_array_equal(read_picture(base / "test/spot/a0.png"), PICTURE)
    label = read_picture(base / "ground_truth/spot/a0_mask.png")
    np.testing.assert_array_equal(label[..., 0], LABEL.astype(np.uint8) * 255)
    assert records(tmp_path / "out") == [
        {
            "image": "parts/test/spot/a0.png",
            "label": "parts/ground_truth/spot/a0_mask.png",
            "source": "a.png",
            "sample": 0,
        }
    ]


def test_every_fifth_good_picture_is_for_the_test(tmp_path):
    dataset = opened(tmp_path / "out")
    paths = [dataset.add_good(i, f"{i:03}", PICTURE) for i in range(11)]
    assert [p for p in paths if "/test/" in p] == [
        "parts/test/good/004.png",
        "parts/test/good/009.png",
    ]
    for path in paths:
        np.testing.assert_array_equal(read_picture(tmp_path / "out" / path), PICTURE)


def test_no_file_is_ever_there_in_part(tmp_path, monkeypatch):
    dataset, replace, seen = opened(tmp_path / "out"), Path.replace, []

    def watch(self, target):
        assert self.parent == target.parent
        assert self.suffix != ".png"  # tools take every PNG of a folder
        seen.append((target.name, target.exists(), self.stat().st_size > 0))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", watch)
    add(dataset, "a.png")
    assert seen == [("a0_mask.png", False, True), ("a0.png", False, True)]


def test_a_sample_counts_only_with_its_line(tmp_path):
    dataset = opened(tmp_path / "out")
    dataset.write("a0", PICTURE, LABEL)
    assert ("a.png", 0) not in dataset
    assert not opened(tmp_path / "out", resume=True).kept


def test_a_sample_whose_file_is_gone_is_made_again_and_listed_once(tmp_path):
    dataset = opened(tmp_path / "out")
    for source in ("a.png", "b.png", "c.png"):
        add(dataset, source)
    (tmp_path / "out/parts/test/spot/a0.png").unlink()
    (tmp_path / "out/parts/ground_truth/spot/c0_mask.png").unlink()
    again = opened(tmp_path / "out", resume=True)
    assert again.kept == {("b.png", 0)}
    add(again, "a.png")
    assert [r["source"] for r in records(tmp_path / "out")] == ["b.png", "a.png"]


def test_what_a_killed_job_left_half_written_is_removed(tmp_path):
    add(opened(tmp_path / "out"), "a.png")
    left = tmp_path / "out/parts/test/spot/.b0.png.partial"
    left.write_bytes(b"half")
    opened(tmp_path / "out", resume=True)
    assert not left.exists()
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / ".job.json.partial").write_bytes(b"{")
    opened(tmp_path / "two", resume=True)
    assert set(tree(tmp_path / "two")) == {"job.json"}


@pytest.mark.parametrize("cut", [1, 5, 30])
@pytest.mark.parametrize("name", ["manifest.jsonl", "dropped.jsonl"])
def test_a_line_that_was_cut_off_is_removed(tmp_path, name, cut):
    dataset = opened(tmp_path / "out")
    add(dataset, "a.png")
    dataset.drop({"source": "b.png", "sample": 0}, "no defect appeared")
    path = tmp_path / "out" / name
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:-cut])
    again = opened(tmp_path / "out", resume=True)
    assert len(again.kept) == len(again.dropped) == 1
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "3",
        "null",
        '{"sample": 0, "image": "x", "label": "x"}',
        '{"source": "a", "sample": "one", "image": "x", "label": "x"}',
        '{"source": "a", "sample": 0, "image": 5, "label": "x"}',
        "\x00\xff",
    ],
)
def test_a_damaged_manifest_names_the_line(tmp_path, line):
    add(opened(tmp_path / "out"), "a.png")
    with (tmp_path / "out" / "manifest.jsonl").open("a", encoding="latin-1") as file:
        file.write(line + "\n")
    with pytest.raises(InputError, match=r"manifest.jsonl: line 2 is damaged"):
        opened(tmp_path / "out", resume=True)


def test_a_folder_that_is_not_empty_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(OutputError, match="not empty; add --resume"):
        opened(tmp_path)
    with pytest.raises(OutputError, match=r"without a job.json, so there is no job to go on"):
        opened(tmp_path, resume=True)
    assert set(tree(tmp_path)) == {"mine.txt"}


def test_another_job_is_refused_with_what_differs(tmp_path):
    opened(tmp_path / "out", {"seed": 0, "steps": 50, "blend": "residual"})
    with pytest.raises(
        InputError, match=r"another job \(grow: None -> 2; seed: 0 -> 1; steps: 50 -> 20\)"
    ):
        opened(
            tmp_path / "out",
            {"seed": 1, "steps": 20, "blend": "residual", "grow": 2},
            resume=True,
        )
    for damage in ("{", "[1]", "7", "\x00"):
        (tmp_path / "out" / "job.json").write_text(damage)
        with pytest.raises(InputError, match=r"job.json: damaged"):
            opened(tmp_path / "out", resume=True)


@pytest.mark.parametrize("name", ["", "..", "../up", "a/b", "/abs", ".hidden", "a\nb", "a\\b"])
def test_names_that_would_leave_the_folder(tmp_path, name):
    with pytest.raises(UsageError, match="cannot be the name of a folder"):
        opened(tmp_path / "out", category=name)
    with pytest.raises(UsageError, match="cannot be the name of a folder"):
        opened(tmp_path / "out", defect=name)
    assert not (tmp_path / "out").exists()


def test_a_defect_named_good_would_be_counted_as_none(tmp_path):
    with pytest.raises(UsageError, match="cannot be named 'good'"):
        opened(tmp_path / "out", defect="good")


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("a file")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutputError, match="cannot be written"):
            opened(out)
    dataset = opened(tmp_path / "out")
    (tmp_path / "out" / "parts").write_text("in the way")
    with pytest.raises(OutputError, match=r"a0_mask.png: cannot be written.*--resume"):
        add(dataset, "a.png")


# ---- the whole job, stopped in every way ------------------------------------------------------


@pytest.fixture(params=[{"batch": 1, "count": 2}, {"batch": 3, "count": 2}], ids=str)
def job(request, monkeypatch):
    """On an engine that rounds a little differently for every batch size, as real ones do."""
    decode = FakeEngine.decode
    monkeypatch.setattr(FakeEngine, "decode", lambda self, z: decode(self, z) + 0.01 * len(z))
    return Job(**request.param, blend="decoded")


def test_ctrl_c_finishes_the_pictures_at_hand_and_resume_ends_the_same(go, monkeypatch, capsys):
    job = Job(batch=1, count=2)
    whole, _ = go("whole", job)
    step, calls = FakeEngine.step, []

    def interrupt(self, rows):
        calls.append(1)
        if len(calls) == 14:  # in the middle of the second picture: 4 and 2 x 4 steps each
            signal.raise_signal(signal.SIGINT)
        return step(self, rows)

    monkeypatch.setattr(FakeEngine, "step", interrupt)
    with pytest.raises(Cancelled, match="stopped after 2 of 3 pictures; go on with --resume"):
        go("out", job)
    assert len(records(whole.with_name("out"))) == 4
    monkeypatch.setattr(FakeEngine, "step", step)
    out, summary = go("out", job, resume=True)
    assert (summary.kept, summary.made) == (6, 2)
    assert without_times(out) == without_times(whole)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_ctrl_c_stops_at_once(go, monkeypatch):
    step = FakeEngine.step

    def interrupt(self, rows):
        signal.raise_signal(signal.SIGINT)
        return step(self, rows)

    monkeypatch.setattr(FakeEngine, "step", interrupt)
    with pytest.raises(KeyboardInterrupt):
        go()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_of_the_host_is_left_alone(go, monkeypatch):
    step, heard = FakeEngine.step, []

    def interrupt(self, rows):
        signal.raise_signal(signal.SIGINT)
        return step(self, rows)

    monkeypatch.setattr(FakeEngine, "step", interrupt)
    before = signal.signal(signal.SIGINT, lambda *_: heard.append(1))
    try:
        _, summary = go()
        assert summary.kept == 3
        assert heard
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("kill_at", range(1, 17))
def test_a_job_killed_at_any_write_resumes_to_the_same_files(go, monkeypatch, job, kill_at):
    whole, _ = go("whole", job)
    write, calls = dataset_module.write_whole, []

    def die(path, data):
        calls.append(1)
        if len(calls) == kill_at:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_name(f".{path.name}.partial").write_bytes(data[:5])
            raise KeyboardInterrupt
        write(path, data)

    monkeypatch.setattr(dataset_module, "write_whole", die)
    with pytest.raises(KeyboardInterrupt):
        go("out", job)
    monkeypatch.setattr(dataset_module, "write_whole", write)
    out, summary = go("out", job, resume=True)
    assert summary.kept == 6
    assert without_times(out) == without_times(whole)


def test_a_finished_job_resumes_without_any_work(go, parts, fake_engine):
    out, first = go(job=Job(count=2))
    fake_engine[1].batches.clear()
    (parts[0] / "1.png").write_bytes(b"not even read again")
    again, summary = go(job=Job(count=2, batch=1), resume=True)
    assert not fake_engine[1].batches
    assert (summary.kept, summary.made, first.made, summary.skipped) == (6, 0, 6, [])
    assert out == again


def test_dropped_samples_are_not_made_again_and_still_told(go, fake_engine):
    engine = fake_engine[1]
    engine.blind, engine.level = True, 0.2  # the colour of the parts
    out, first = go()
    engine.batches.clear()
    _, again = go(resume=True)
    assert not engine.batches
    assert (
        again.dropped
        == first.dropped
        == [f"{i}.png, sample 0: no defect appeared" for i in range(3)]
    )
    assert json.loads((out / "dropped.jsonl").read_text().splitlines()[0])["refined_area"] == 0


def test_a_picture_that_was_mended_is_made_on_resume(go, parts):
    data = (parts[0] / "1.png").read_bytes()
    (parts[0] / "1.png").write_bytes(data[:99])
    out, summary = go()
    assert (summary.kept, len(summary.skipped)) == (2, 1)
    assert [r["image"][-7:] for r in records(out)] == ["000.png", "002.png"]
    (parts[0] / "1.png").write_bytes(data)
    out, summary = go(resume=True)
    summary.check()
    assert sorted(r["image"][-7:] for r in records(out)) == ["000.png", "001.png", "002.png"]


def test_other_pictures_are_another_job(go, parts):
    go()
    (parts[0] / "00.png").write_bytes((parts[0] / "0.png").read_bytes())
    with pytest.raises(InputError, match=r"another job \(pictures: '3, sha256 .*-> '4, sha256"):
        go(resume=True)


def test_another_engine_is_another_job(go, fake_engine):
    go()
    (fake_engine[0] / "engine.json").write_text("{ }")
    with pytest.raises(InputError, match=r"another job \(engine: "):
        go(resume=True)


@pytest.mark.parametrize("full_at", range(2, 11))
def test_a_full_disk_is_said_and_nothing_is_lost(go, monkeypatch, full_at):
    whole, _ = go("whole", Job(batch=1))
    write, calls = Path.write_bytes, []

    def full(self, data):
        calls.append(1)
        if len(calls) == full_at:
            write(self, data[: len(data) // 2])
            raise OSError(28, "No space left on device")
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match=r"No space left on device.*--resume"):
        go("out", Job(batch=1))
    monkeypatch.setattr(Path, "write_bytes", write)
    out = whole.with_name("out")
    assert not list(out.rglob(".*"))
    for record in records(out) if (out / "manifest.jsonl").exists() else []:
        assert tree(out)[record["image"]] == tree(whole)[record["image"]]
    go("out", Job(batch=1), resume=True)
    assert without_times(out) == without_times(whole)
