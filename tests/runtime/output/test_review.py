"""Reviews: what is refused leaves the dataset whole, stays out, and comes back as it was."""

from __future__ import annotations

import base64
import json
import shutil
import sqlite3
from contextlib import closing

import numpy as np
import pytest
from support.outputs import records, tree
from support.program import command_line

from defectrt.errors import InputError, UsageError
from defectrt.images.png import encode_png
from defectrt.masks.reading import read_any_mask
from defectrt.output.journal import JOURNAL, Journal
from defectrt.output.merge import merge
from defectrt.output.review import Decision, read_decisions, review


def contents(folder):
    return {name: data for name, data in tree(folder).items() if name != JOURNAL}


def refusing(folder, *places, keep=False, reason=""):
    lines = records(folder)
    return [Decision(image=lines[i]["image"], keep=keep, reason=reason) for i in places]


@pytest.fixture
def made(go):
    return go(count=2, formats=("coco", "yolo"))


def test_what_is_refused_leaves_every_format(made):
    out, before = made
    (image,) = [d.image for d in refusing(out, 1)]
    name = image.split("/")[-1]
    done = review(out, refusing(out, 1, reason="blurred"), by="Ada")
    assert (done.refused, done.restored, done.kept) == (1, 0, before.kept - 1)
    assert image not in {record["image"] for record in records(out)}
    assert not (out / image).exists()
    assert (out / "refused" / image).is_file()
    for split in ("train", "val"):
        coco = json.loads((out / "coco" / f"instances_{split}.json").read_text())
        assert image not in {entry["file_name"] for entry in coco["images"]}
    assert not list((out / "yolo").rglob(f"spot_{name[:-4]}.*"))
    assert list((out / "yolo").rglob("spot_*.txt"))
    line = json.loads((out / "refused.jsonl").read_text())
    assert line["image"] == image
    assert line["reason"] == "refused by Ada: blurred"
    page = (out / "report.html").read_text()
    assert '"refused":1' in page
    assert "refused by Ada" in page


def test_it_is_never_made_again(made, go):
    out, before = made
    review(out, refusing(out, 0, 2), by="Ada")
    after = contents(out)
    _, again = go(count=2, formats=("coco", "yolo"))
    assert again.made == 0
    assert again.refused == 2
    assert again.kept == before.kept - 2
    again.check()
    assert contents(out) == after


def test_what_is_kept_again_is_as_it_was(made):
    out, _ = made
    before = contents(out)
    decisions = refusing(out, 0, 1)
    review(out, decisions, by="Ada")
    back = [Decision(image=d.image, keep=True) for d in decisions]
    assert review(out, back, by="Bo").restored == 2
    assert contents(out) == before


def test_the_same_decision_twice_changes_nothing(made):
    out, _ = made
    decisions = refusing(out, 0)
    review(out, decisions, by="Ada")
    before = contents(out)
    assert review(out, decisions, by="Bo").refused == 0
    assert contents(out) == before


def test_stopped_after_the_note_the_next_command_moves_what_is_left(made, go, monkeypatch):
    out, _ = made
    decisions = refusing(out, 0)
    monkeypatch.setattr("defectrt.output.review.set_apart", stopped)
    with pytest.raises(KeyboardInterrupt):
        review(out, decisions, by="Ada")
    assert (out / decisions[0].image).exists()
    _, again = go(count=2, formats=("coco", "yolo"))
    assert (again.made, again.refused) == (0, 1)
    assert not (out / decisions[0].image).exists()
    assert (out / "refused" / decisions[0].image).exists()
    assert decisions[0].image not in {record["image"] for record in records(out)}


def stopped(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize("by", ["", "  ", "a" * 201, "a\x1bb"])
def test_without_a_name_nobody_decided(made, by):
    with pytest.raises(UsageError, match="give a name with --by"):
        review(made[0], refusing(made[0], 0), by=by)


def test_one_that_is_not_there_stops_all_of_it(made):
    out, _ = made
    before = contents(out)
    decisions = [*refusing(out, 0), Decision(image="../x.png", keep=False)]
    with pytest.raises(InputError, match="not a sample of"):
        review(out, decisions, by="Ada")
    assert contents(out) == before


def test_a_merged_dataset_has_no_journal_to_write_in(made, go, tmp_path):
    other, _ = go("other", count=1, seed=3)
    merge([made[0], other], tmp_path / "both")
    with pytest.raises(InputError, match="without a journal"):
        review(tmp_path / "both", [], by="Ada")


def test_refused_ones_stay_so_in_joined_shards(go, tmp_path):
    shards = [go(f"s{part}", shard=f"{part}/2", count=2)[0] for part in (1, 2)]
    decisions = refusing(shards[0], 0)
    review(shards[0], decisions, by="Ada")
    merge(shards, tmp_path / "joined")
    assert (tmp_path / "joined" / "refused" / decisions[0].image).is_file()
    _, summary = go("joined", count=2)
    assert (summary.made, summary.refused) == (0, 1)


def test_the_journal_says_who(made):
    out, _ = made
    review(out, refusing(out, 0), by="Ada Löwe")
    job = json.loads((out / "job.json").read_text())
    with Journal(out / JOURNAL, job) as journal:
        (entry,) = journal.entries("refused")
    assert entry.reason == "refused by Ada Löwe"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"decisions": [{"image": "a", "keep": "perhaps"}]}',
        '{"decisions": [{"image": "a", "keep": true, "more": 1}]}',
        '{"decisions": ' + "[" * 100_000,
    ],
)
def test_what_is_no_file_of_decisions_is_refused(tmp_path, text):
    path = tmp_path / "decisions.json"
    path.write_text(text)
    with pytest.raises(InputError, match="not a file of decisions"):
        read_decisions(path)


def test_the_command_carries_out_what_the_report_saved(made, tmp_path):
    out, before = made
    image = refusing(out, 0)[0].image
    saved = {"by": "Ada", "decisions": [{"image": image, "keep": False}]}
    path = tmp_path / "decisions.json"
    path.write_text(json.dumps(saved))
    result = command_line("review", out, path)
    assert result.returncode == 0, result.stderr
    assert f"1 refused, 0 restored, {before.kept - 1} kept" in result.stdout
    assert "refused by Ada" in (out / "refused.jsonl").read_text()
    shutil.rmtree(out)
    assert command_line("review", out, path).returncode == 3


def test_stopped_while_it_brings_one_back_it_stays_refused_and_whole(made, monkeypatch):
    out, _ = made
    before = contents(out)
    (decision,) = refusing(out, 0)
    review(out, [decision], by="Ada")
    back = [Decision(image=decision.image, keep=True)]
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "settle", stopped)
        with pytest.raises(KeyboardInterrupt):
            review(out, back, by="Bo")
    assert review(out, back, by="Bo").restored == 1
    assert contents(out) == before


def test_what_was_changed_meanwhile_stops_it(made):
    out, before = made
    good = out / records(out)[0]["good"]
    good.write_bytes(good.read_bytes() + b"more")
    with pytest.raises(InputError, match="was changed or removed since it was made"):
        review(out, refusing(out, 0), by="Ada")
    assert len(records(out)) == before.kept


def test_files_that_are_gone_cannot_come_back(made):
    out, _ = made
    (decision,) = refusing(out, 0)
    review(out, [decision], by="Ada")
    shutil.rmtree(out / "refused")
    with pytest.raises(InputError, match="gone, so the sample cannot come back"):
        review(out, [Decision(image=decision.image, keep=True)], by="Ada")


def test_a_journal_moves_nothing_from_elsewhere(made, tmp_path):
    out, _ = made
    victim = tmp_path / "victim.txt"
    victim.write_text("mine")
    with closing(sqlite3.connect(out / JOURNAL)) as db:
        record = json.dumps({"image": "../victim.txt"})
        db.execute("UPDATE sample SET state = 'refused', record = ?", (record,))
        db.commit()
    with pytest.raises(InputError, match="leads out of the dataset"):
        review(out, [], by="Ada")
    assert victim.read_text() == "mine"


def label_png(out, record, box):
    """A label with one box, as a file of decisions has it."""
    mask = np.zeros(read_any_mask(out / record["label"]).shape, np.uint8)
    mask[box] = 255
    return base64.b64encode(encode_png(mask)).decode()


BOX = np.s_[10:14, 20:30]


def test_a_corrected_label_counts_in_every_format_and_says_whose_it_is(made, go):
    out, _ = made
    record = records(out)[0]
    label = Decision(image=record["image"], keep=True, label=label_png(out, record, BOX))
    assert review(out, [label], by="Ada").relabelled == 1
    after = records(out)[0]
    assert read_any_mask(out / record["label"]).sum() == 40 == after["refined_area"]
    assert after["label_by"] == "Ada"
    assert after["coverage"] == 40 / after["mask_area"]
    boxes = [
        entry["bbox"]
        for split in ("train", "val")
        for entry in json.loads((out / "coco" / f"instances_{split}.json").read_text())[
            "annotations"
        ]
    ]
    assert [20, 10, 10, 4] in boxes
    kept = contents(out)
    _, again = go(count=2, formats=("coco", "yolo"))
    assert again.made == 0
    assert contents(out) == kept


@pytest.mark.parametrize("times", [1, 2])
def test_a_label_is_again_as_it_was_made(made, times):
    out, _ = made
    before = contents(out)
    record = records(out)[0]
    for i in range(times):
        box = np.s_[10 + i : 14, 20:30]
        png = label_png(out, record, box)
        review(out, [Decision(image=record["image"], keep=True, label=png)], by="Ada")
    assert contents(out) != before
    review(out, [Decision(image=record["image"], keep=True, label="")], by="Bo")
    assert contents(out) == before


def test_stopped_before_a_new_label_is_noted_the_made_one_is_there(made, monkeypatch):
    out, _ = made
    before = contents(out)
    record = records(out)[0]
    label = Decision(image=record["image"], keep=True, label=label_png(out, record, BOX))
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "settle", stopped)
        with pytest.raises(KeyboardInterrupt):
            review(out, [label], by="Ada")
    review(out, [], by="Ada")
    assert contents(out) == before
    assert review(out, [label], by="Ada").relabelled == 1


@pytest.mark.parametrize(
    ("keep", "label", "why"),
    [
        (True, "bm9uZQ==", "no PNG in base64"),
        (True, "?", "no PNG in base64"),
        (True, base64.b64encode(encode_png(np.ones((3, 3), np.uint8))).decode(), r"is \[3, 3\]"),
        (False, "bm9uZQ==", "needs no other label"),
        (False, "", "needs no other label"),
    ],
)
def test_what_cannot_be_a_label_changes_nothing(made, keep, label, why):
    out, _ = made
    before = contents(out)
    image = records(out)[0]["image"]
    with pytest.raises(InputError, match=why):
        review(out, [Decision(image=image, keep=keep, label=label)], by="Ada")
    assert contents(out) == before
