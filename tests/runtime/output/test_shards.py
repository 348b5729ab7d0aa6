"""Shards: a job cut into parts and joined is the job made in one run, to the byte."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing

import pytest
from support.outputs import tree

from defectrt.config.job import JobConfig
from defectrt.errors import InputError, UsageError
from defectrt.output.journal import JOURNAL, read_entries
from defectrt.output.merge import merge


def contents(folder):
    """Every file but the journal, which holds times."""
    return {name: data for name, data in tree(folder).items() if name != JOURNAL}


def untimed(folder):
    return [
        {k: v for k, v in vars(entry).items() if k != "seconds"}
        for entry in read_entries(folder / JOURNAL)
    ]


def write_journal(folder, query, *values):
    with closing(sqlite3.connect(folder / JOURNAL)) as db:
        db.execute(query, values)
        db.commit()


@pytest.fixture
def made(go):
    """A function that makes all shards of the job, each in a folder of its own."""

    def make(count, **options):
        return [
            go(f"shard{part}", shard=f"{part}/{count}", count=2, **options)[0]
            for part in range(1, count + 1)
        ]

    return make


@pytest.mark.parametrize("count", [2, 3, 7])
def test_joined_they_are_one_run(go, made, tmp_path, count):
    whole, summary = go("whole", count=2)
    kept = merge(made(count)[::-1], tmp_path / "joined")
    assert kept == summary.kept > 0
    assert contents(tmp_path / "joined") == contents(whole)
    assert untimed(tmp_path / "joined") == untimed(whole)


def test_other_formats_are_those_of_one_run(go, made, tmp_path):
    whole, _ = go("whole", count=2, formats=("coco", "yolo"))
    merge(made(2), tmp_path / "joined", formats=("mvtec", "coco", "yolo"))
    assert contents(tmp_path / "joined") == contents(whole)


def test_a_joined_job_goes_on(go, made, tmp_path):
    merge(made(2), tmp_path / "joined")
    before = contents(tmp_path / "joined")
    _, summary = go("joined", count=2)
    assert summary.made == 0
    assert contents(tmp_path / "joined") == before


def test_an_image_that_cannot_be_read_fails_in_its_shard(go, made, parts, tmp_path):
    (parts[0] / "1.png").write_bytes(b"no image")
    whole, _ = go("whole", count=2)
    merge(made(2), tmp_path / "joined")
    assert contents(tmp_path / "joined") == contents(whole)
    assert (tmp_path / "joined" / "failed.jsonl").read_text().count("1.png") >= 2


def test_one_that_was_stopped_goes_on_first(go, made, tmp_path):
    whole, _ = go("whole", count=2)
    shards = made(2)
    write_journal(shards[0], "DELETE FROM sample WHERE number = 0")  # as a killed process leaves it
    _, summary = go("shard1", shard="1/2", count=2)
    assert summary.made > 0
    merge(shards, tmp_path / "joined")
    assert contents(tmp_path / "joined") == contents(whole)


def test_a_missing_one_is_named(made, tmp_path):
    shards = made(3)
    with pytest.raises(InputError, match="shard 2/3: missing"):
        merge([shards[0], shards[2]], tmp_path / "joined")
    assert not (tmp_path / "joined").exists()


def test_one_given_twice_is_named(made, tmp_path):
    first, _ = made(2)
    shutil.copytree(first, tmp_path / "copy")
    with pytest.raises(InputError, match="both are shard 1/2"):
        merge([first, tmp_path / "copy"], tmp_path / "joined")


def test_those_of_another_job_are_refused_with_what_differs(go, made, tmp_path):
    first, _ = made(2)
    other, _ = go("other", shard="2/2", count=2, seed=9)
    with pytest.raises(InputError, match="differ in seed"):
        merge([first, other], tmp_path / "joined")


def test_a_whole_dataset_is_no_shard(go, made, tmp_path):
    whole, _ = go("whole", count=2)
    with pytest.raises(InputError, match=r"not a shard, but others are|differ in"):
        merge([made(2)[0], whole], tmp_path / "joined")


def test_a_changed_file_is_refused(made, tmp_path):
    shards = made(2)
    image = next((shards[0] / "parts" / "test").rglob("*.png"))
    image.write_bytes(image.read_bytes() + b"more")
    with pytest.raises(InputError, match="changed since it was made"):
        merge(shards, tmp_path / "joined")
    assert not (tmp_path / "joined").exists()


def test_a_journal_cannot_write_elsewhere(made, tmp_path):
    shards = made(2)
    outside = tmp_path / "outside.png"
    files = json.dumps({"../outside.png": "0" * 64})
    write_journal(shards[0], "UPDATE sample SET files = ?", files)
    with pytest.raises(InputError, match="leads out of the dataset"):
        merge(shards, tmp_path / "joined")
    assert not outside.exists()


def test_an_unfinished_one_is_refused(made, tmp_path):
    shards = made(2)
    write_journal(shards[0], "DELETE FROM sample WHERE number = 0")
    with pytest.raises(InputError, match="not finished; run its command again"):
        merge(shards, tmp_path / "joined")


def test_more_shards_than_images_leaves_some_empty(go, made):
    assert go("none", shard="9/9", count=2)[1].requested == 0


@pytest.mark.parametrize("text", ["0/2", "3/2", "2", "a/b", "1/0", "-1/2", "1/2/3"])
def test_what_is_no_shard_is_refused(tmp_path, text):
    with pytest.raises(UsageError, match="write I/N"):
        JobConfig(images=tmp_path, shard=text)


def test_without_out_each_has_a_folder_of_its_own(tmp_path):
    config = JobConfig(images=tmp_path / "good", shard="2/4")
    assert config.dataset.name == "good-defects-2of4"


def test_one_that_was_asked_to_stop_is_not_finished(go, made, tmp_path):
    """After Ctrl-C the manifest is whole, of what there is."""
    shards = made(2)
    job = json.loads((shards[0] / "job.json").read_text())
    assert job["requested"] > 0
    (shards[0] / "job.json").write_text(json.dumps(job | {"requested": job["requested"] + 1}))
    with pytest.raises(InputError, match="not finished; run its command again"):
        merge(shards, tmp_path / "joined")


def test_a_good_image_of_which_nothing_was_made_is_there_too(go, made, parts, tmp_path):
    (parts[1] / "1_mask.png").write_bytes(b"no mask")
    whole, _ = go("whole", count=2)
    merge(made(2), tmp_path / "joined")
    assert contents(tmp_path / "joined") == contents(whole)


@pytest.mark.parametrize("shard", [["1/2"], 5, "x/y", "3/2", "1/99999999999"])
def test_a_damaged_job_is_refused(made, tmp_path, shard):
    shards = made(2)
    job = json.loads((shards[0] / "job.json").read_text())
    (shards[0] / "job.json").write_text(json.dumps(job | {"shard": shard}))
    with pytest.raises(InputError, match="which is none"):
        merge(shards, tmp_path / "joined")
