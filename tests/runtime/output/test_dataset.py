"""The output folder: what is there is whole, a stopped job goes on, another job does not."""

from __future__ import annotations

import errno
import itertools
import json
import multiprocessing
import os
import re
import signal
import sqlite3
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from support.fake_engine import FakeEngine
from support.outputs import dataset_of, records, tree

from defectrt import files
from defectrt.errors import Cancelled, InputError, OutputError, UsageError
from defectrt.files import read_file
from defectrt.images.reading import read_image
from defectrt.output.dataset import DatasetWriter
from defectrt.output.journal import Journal, JournalEntry

IMAGE = np.full((4, 5, 3), 7, np.uint8)
LABEL = np.eye(4, 5, dtype=bool)


def opened(out, job=None, *, category="parts", defect="spot", wait=False):
    return DatasetWriter(out, category, [defect], job or {"seed": 0}, wait=wait)


def add(dataset, image, number=0, state="kept"):
    source, record = f"{image}.png", {"source": f"{image}.png", "sample": number}
    if state == "kept":
        record = dataset.write(f"{image}{number}", "spot", IMAGE, LABEL, [LABEL]) | record
    entry = JournalEntry(image, number, "spot", source, state, "none", record=record)
    dataset.settle(entry)
    dataset.commit()


def kept(dataset):
    return [(e.image, e.number) for e in dataset.journal.entries("kept")]


def test_what_is_written(tmp_path):
    dataset = opened(tmp_path / "out")
    assert dataset.add_good(0, "a0", IMAGE) == "parts/train/good/a0.png"
    assert dataset.add_good(4, "a4", IMAGE) == "parts/test/good/a4.png"
    add(dataset, 1)
    add(dataset, 0)
    add(dataset, 2, state="dropped")
    add(dataset, 3, state="failed")
    assert not (tmp_path / "out" / "manifest.jsonl").exists()
    dataset.finish()
    base = tmp_path / "out" / "parts"
    np.testing.assert_array_equal(read_image(base / "train/good/a0.png"), IMAGE)
    np.testing.assert_array_equal(read_image(base / "test/spot/00.png"), IMAGE)
    label = read_image(base / "ground_truth/spot/00_mask.png")
    np.testing.assert_array_equal(label[..., 0], LABEL.astype(np.uint8) * 255)
    assert records(tmp_path / "out") == [
        {
            "image": f"parts/test/spot/{i}0.png",
            "label": f"parts/ground_truth/spot/{i}0_mask.png",
            "mask": f"masks/spot/{i}0.png",
            "source": f"{i}.png",
            "sample": 0,
        }
        for i in (0, 1)
    ]
    for name, about in (
        ("dropped", {"source": "2.png"}),
        ("failed", {"source": "3.png", "defect": "spot"}),
    ):
        line = json.loads((tmp_path / "out" / f"{name}.jsonl").read_text())
        assert line == about | {"sample": 0, "reason": "none"}
    assert json.loads((tmp_path / "out" / "job.json").read_text()) == {"seed": 0}


def test_no_file_is_ever_there_in_part(tmp_path, monkeypatch):
    dataset, replace, seen = opened(tmp_path / "out"), Path.replace, []

    def watch(self, target):
        assert self.parent == target.parent
        assert self.suffix != ".png"  # tools take every PNG of a folder
        seen.append((target.name, target.exists(), self.stat().st_size > 0))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", watch)
    add(dataset, 0)
    assert seen == [(name, False, True) for name in ("00.png", "00_mask.png", "00.png")]


def test_data_is_on_disk_before_it_has_a_name_and_names_before_the_job_ends(tmp_path, monkeypatch):
    """The order of system calls is what survives a loss of power."""
    seen, sync, replace = [], files.os.fsync, Path.replace
    monkeypatch.setattr(files.os, "fsync", lambda fd: seen.append("sync") or sync(fd))
    monkeypatch.setattr(Path, "replace", lambda s, t: seen.append(t.name) or replace(s, t))
    dataset = opened(tmp_path / "out")
    add(dataset, 0)
    assert seen == ["sync", "00.png", "sync", "00_mask.png", "sync", "00.png"]
    folders, sync_folder = [], files.sync_folder
    monkeypatch.setattr("defectrt.output.dataset.sync_folder", lambda f: folders.append(f.name))
    dataset.finish()
    assert {"out", "spot"} <= set(folders)
    seen.clear()
    sync_folder(tmp_path / "out")
    assert seen == ["sync"]


def test_the_journal_is_on_disk_when_a_sample_is_settled(tmp_path):
    journal = opened(tmp_path / "out").journal
    assert journal._run("PRAGMA synchronous") == [(2,)]  # FULL
    assert journal._run("PRAGMA journal_mode") == [("wal",)]


def test_samples_are_settled_together_and_all_of_them_whatever_ends_the_job(tmp_path):
    dataset, commits = opened(tmp_path / "out"), []
    settle = dataset.journal.settle
    dataset.journal.settle = lambda *entries: (commits.append(len(entries)), settle(*entries))
    entries = (JournalEntry(0, number, "spot", "a.png", "dropped") for number in range(50))

    def stopped():
        with dataset:
            for entry in entries:
                dataset.settle(entry)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert sum(commits) == 50
    assert len(commits) < 25
    assert opened(tmp_path / "out").journal.count("dropped") == 50


def test_a_sample_counts_only_in_the_journal(tmp_path):
    dataset = opened(tmp_path / "out")
    dataset.write("a0", "spot", IMAGE, LABEL, [LABEL])
    dataset.journal.close()
    assert not kept(opened(tmp_path / "out"))


def test_a_sample_whose_file_is_gone_is_made_again(tmp_path):
    dataset = opened(tmp_path / "out")
    for image in range(3):
        add(dataset, image)
    dataset.journal.close()
    (tmp_path / "out/parts/test/spot/00.png").unlink()
    (tmp_path / "out/parts/ground_truth/spot/20_mask.png").unlink()
    again = opened(tmp_path / "out")
    assert kept(again) == [(1, 0)]
    assert again.journal.settled(0) == set()
    assert again.journal.settled(1) == {(0, "spot")}


def test_what_failed_is_tried_again_and_what_was_dropped_is_not(tmp_path):
    journal = opened(tmp_path / "out").journal
    for number, state in enumerate(("kept", "dropped", "failed")):
        journal.settle(JournalEntry(0, number, "spot", "a.png", state))
    assert journal.settled(0) == {(0, "spot"), (1, "spot")}
    journal.settle(JournalEntry(0, 2, "spot", "a.png", "kept"))
    assert (journal.count("kept"), journal.count("failed")) == (2, 0)


def test_what_a_killed_job_left_half_written_is_removed(tmp_path):
    dataset = opened(tmp_path / "out")
    add(dataset, 0)
    left = tmp_path / "out/parts/test/spot/.b0.png.partial"
    left.write_bytes(b"half")
    dataset.journal.close()
    opened(tmp_path / "out")
    assert not left.exists()


@pytest.mark.parametrize("damage", [b"", b"not a database, but long enough to be one" * 99, None])
def test_a_damaged_journal(tmp_path, damage):
    """Empty is a job that was killed before it began; anything else is said."""
    path = tmp_path / "out" / "job.sqlite"
    opened(tmp_path / "out").journal.close()
    if damage is None:
        with sqlite3.connect(path) as db:
            db.execute("UPDATE job SET record = '{'")
        db.close()
    else:
        path.write_bytes(damage)
    if damage == b"":
        opened(tmp_path / "out").journal.close()
    else:
        with pytest.raises(InputError, match=r"job.sqlite: damaged \(.*choose another --out"):
            opened(tmp_path / "out")


def test_a_journal_of_another_version(tmp_path):
    opened(tmp_path / "out").journal.close()
    with sqlite3.connect(tmp_path / "out" / "job.sqlite") as db:
        db.execute("PRAGMA user_version = 7")
    db.close()
    with pytest.raises(InputError, match="a journal of version 7, this program reads 3"):
        opened(tmp_path / "out")


def test_a_folder_that_is_not_empty_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(OutputError, match="not empty and not a job's folder"):
        opened(tmp_path)
    assert set(tree(tmp_path)) == {"mine.txt"}


def test_another_job_is_refused_with_what_differs(tmp_path):
    opened(tmp_path / "out", {"seed": 0, "steps": 50, "blend": "residual"}).journal.close()
    other = {"seed": 1, "steps": 20, "blend": "residual", "grow": 2}
    with pytest.raises(
        InputError, match=r"another job \(grow: None -> 2; seed: 0 -> 1; steps: 50 -> 20\)"
    ):
        opened(tmp_path / "out", other)


def _hold(out, ready, done):
    with opened(out).journal:
        ready.set()
        done.wait(60)


@pytest.mark.slow
def test_a_second_process_is_refused_or_waits(tmp_path):
    """A process that is killed lets go of the folder too."""
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(tmp_path / "out", ready, done))
    process.start()
    assert ready.wait(60)
    try:
        with pytest.raises(OutputError, match=r"another process is writing there; wait.*--wait"):
            opened(tmp_path / "out")
        done.set()
        opened(tmp_path / "out", wait=True).journal.close()
    finally:
        process.kill()
        process.join()


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
    with pytest.raises(OutputError, match=r"00.png: cannot be written.*same command again"):
        add(dataset, 0)


# ---- the whole job, stopped in every way ------------------------------------------------------


@pytest.fixture(autouse=True)
def rounding(monkeypatch):
    """The engine rounds a little differently for every batch size, as real ones may."""
    step = FakeEngine.step

    def rounded(self, rows):
        latent, attention = step(self, rows)
        return latent + np.float32(0.001 * len(latent)) * rows.region, attention

    monkeypatch.setattr(FakeEngine, "step", rounded)


def test_ctrl_c_finishes_the_samples_at_hand_and_the_same_call_goes_on(go, monkeypatch, capsys):
    job = {"batch_size": 1, "count": 6}
    whole, _ = go("whole", **job)
    step, calls = FakeEngine.step, []

    def interrupt(self, rows):
        calls.append(1)
        if len(calls) == 14:
            signal.raise_signal(signal.SIGINT)
        return step(self, rows)

    monkeypatch.setattr(FakeEngine, "step", interrupt)
    with pytest.raises(Cancelled, match=r"stopped after \d+ of 18 samples; run the same command"):
        go("out", **job)
    out = whole.with_name("out")
    done = len(records(out))
    assert 0 < done < 18
    assert records(out) == records(whole)[:done]
    monkeypatch.setattr(FakeEngine, "step", step)
    _, summary = go("out", **job)
    assert (summary.kept, summary.made) == (18, 18 - done)
    assert dataset_of(out) == dataset_of(whole)
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


class Countdown:
    """Ends the process, as `kill -9` does, at the n-th event: any call, in any thread."""

    def __init__(self, events=0):
        self.left = events

    def __call__(self, frame, event, argument):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def _run_and_die(go, name, job, events, counter=None):
    """The job in a process of its own, killed after so many events; returns whether it ended.

    With a counter and 0 events it is only counted how many there are.
    """

    def work():
        countdown = Countdown(events)
        threading.setprofile(countdown)
        sys.setprofile(countdown)
        go(name, **job)
        sys.setprofile(None)
        if counter:
            counter.value = -countdown.left
        os._exit(0)

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode == 0


@pytest.mark.parametrize("seed", [pytest.param(seed, marks=pytest.mark.slow) for seed in range(8)])
def test_a_job_that_is_killed_again_and_again_ends_with_the_same_bytes(go, seed):
    """At random points, in the midst of calls into Python, NumPy, SQLite and the system."""
    job = {"batch_size": 2, "count": 4, "candidates": 2}
    whole, _ = go("whole", **job)
    rng, kills = np.random.default_rng(seed), 0
    _run_and_die(go, "counted", job, 0, counter := multiprocessing.Value("q"))
    while not _run_and_die(go, "out", job, int(rng.integers(1, counter.value * 2 // 3))):
        kills += 1
    assert kills >= 2
    out, summary = go("out", **job)
    assert (summary.kept, summary.made) == (12, 0)
    assert dataset_of(out) == dataset_of(whole)
    assert set(tree(out)) - set(dataset_of(out)) == {"job.sqlite"}


def test_a_finished_job_costs_nothing(go, fake_engine):
    out, first = go(count=2)
    fake_engine[1].batches.clear()
    before = dataset_of(out)
    again, summary = go(count=2)
    assert not fake_engine[1].batches
    assert (summary.kept, summary.made, first.made, summary.failed) == (6, 0, 6, [])
    assert dataset_of(again) == before


def test_dropped_samples_are_not_made_again_and_still_told(go, fake_engine):
    engine = fake_engine[1]
    engine.blind, engine.level = True, 0.2  # the colour of the parts
    out, first = go()
    engine.batches.clear()
    _, again = go()
    assert not engine.batches
    assert (
        again.dropped
        == first.dropped
        == [f"{i}.png, sample 0, spot: no defect appeared" for i in range(3)]
    )
    assert json.loads((out / "dropped.jsonl").read_text().splitlines()[0])["refined_area"] == 0


def test_an_image_that_was_mended_is_made_by_the_next_run(go, parts):
    whole, _ = go("whole")
    data = (parts[0] / "1.png").read_bytes()
    (parts[0] / "1.png").write_bytes(data[:99])
    out, summary = go()
    assert (summary.kept, summary.placed, len(summary.failed)) == (2, 2, 1)
    assert [r["image"][-7:] for r in records(out)] == ["000.png", "002.png"]
    (parts[0] / "1.png").write_bytes(data)
    _, summary = go()
    summary.check()
    assert (summary.made, summary.failed) == (1, [])
    assert dataset_of(out) == dataset_of(whole)


def test_other_images_are_another_job(go, parts):
    go()
    (parts[0] / "00.png").write_bytes((parts[0] / "0.png").read_bytes())
    with pytest.raises(InputError, match=r"another job \(images: '3, sha256 .*-> '4, sha256"):
        go()


@pytest.mark.parametrize("change", [{"seed": 1}, {"candidates": 3}, {"batch_size": 3}], ids=str)
def test_other_options_are_another_job(go, change):
    go()
    ((name, value),) = change.items()
    with pytest.raises(InputError, match=rf"another job \({name}: \d+ -> {value}\)"):
        go(**change)


def test_another_engine_is_another_job(go, fake_engine):
    go()
    (fake_engine[0] / "engine.json").write_text("{ }")
    with pytest.raises(InputError, match=r"another job \(engine: "):
        go()


@pytest.mark.parametrize(
    "code",
    [errno.ENOSPC, *(pytest.param(n, marks=pytest.mark.slow) for n in (errno.EIO, errno.ESTALE))],
    ids=errno.errorcode.get,
)
@pytest.mark.parametrize("call", ["write", "fsync", "replace", "mkdir"])
def test_a_disk_that_fails_is_said_and_nothing_is_lost(go, monkeypatch, code, call):
    """At every one of the first calls in turn, until the job ends without meeting a fault."""
    job, fault = {"batch_size": 1}, OSError(code, os.strerror(code))
    whole, _ = go("whole", **job)
    for n in range(0, 99, 3):
        out = whole.with_name(f"out{n}")
        with monkeypatch.context() as patch:
            failing(patch, call, n, fault)
            try:
                go(out.name, **job)
                break
            except OutputError as error:
                said = str(error)
        assert re.search(rf"{os.strerror(code)}.*run the same command again", said)
        assert not list(out.rglob(".*.partial"))
        go(out.name, **job)
        assert dataset_of(out) == dataset_of(whole)
    assert n > 6


def failing(patch, call, n, fault):
    """Let the n-th call of its kind fail, half-way if it writes; all later ones too."""
    owner, name = {
        "write": (files, "_write"),
        "fsync": (files.os, "fsync"),
        "replace": (Path, "replace"),
        "mkdir": (Path, "mkdir"),
    }[call]
    real, count = getattr(owner, name), itertools.count()

    def fail(*args, **options):
        if next(count) < n + 1:
            return real(*args, **options)
        if call == "write":
            args[0].write(b"half")
        raise fault

    patch.setattr(owner, name, fail)


@pytest.mark.slow
def test_a_disk_that_is_full_for_the_journal(go, monkeypatch, parts):
    """SQLite finds no room for another line; what was settled before stays."""
    job = {"batch_size": 1, "count": 4}
    whole, _ = go("whole", **job)
    real = Journal.__init__

    def small(self, *args, **options):
        real(self, *args, **options)
        self._run("PRAGMA max_page_count = 5")

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "__init__", small)
        patch.setattr("defectrt.output.dataset._MOMENT", -1)  # each by itself
        with pytest.raises(OutputError, match=r"job.sqlite: cannot be written \(database or disk"):
            go("out", **job)
    out, summary = go("out", **job)
    assert summary.made < summary.kept == 12
    assert dataset_of(out) == dataset_of(whole)


def test_images_on_a_share_that_went_away_are_tried_again(go, parts, monkeypatch):
    whole, _ = go("whole")

    def gone(path, most):
        if path.parent == parts[0] and path.name != "0.png":
            raise OSError(errno.EHOSTDOWN, "Host is down")
        return read_file(path, most)

    with monkeypatch.context() as patch:
        patch.setattr("defectrt.files.read_file", gone)
        out, summary = go()
    assert summary.kept == 1
    assert summary.failed == [f"{parts[0]}/{i}.png: cannot be read (Host is down)" for i in (1, 2)]
    go()[1].check()
    assert dataset_of(out) == dataset_of(whole)
