"""Splits: no part on both sides, the same again from a seed, and nothing measured that was seen."""

from __future__ import annotations

import json
import shutil
from collections import Counter

import numpy as np
import pytest
from support.datasets import image, loco, mask, mvtec, visa, write

from defectrt.errors import InputError
from defectrt.training.data.dataset import read_dataset
from defectrt.training.data.samples import GOOD, Sample
from defectrt.training.data.splits import (
    SameWorkpiece,
    few_shot,
    fold,
    read_split,
    samples_of,
    whole,
    write_split,
)
from defectrt.training.record import refuse_seen, seen

TILE = SameWorkpiece(r"tile(\d+)")


@pytest.fixture
def tiles(tmp_path):
    """Six tiles of two defect types, each photographed twice, and four good ones."""
    for tile in range(6):
        for exposure in range(2):
            name = f"{('crack', 'hole')[tile % 2]}/exp{exposure}_tile{tile}"
            write(tmp_path / f"{name}.jpg", image(10 * tile + exposure))
            write(tmp_path / f"{name}.png", mask())
    for tile in range(4):
        write(tmp_path / f"good/exp0_tile{100 + tile}.jpg", image(1000 + tile))
    return read_dataset(tmp_path)


def names(entries):
    return {entry.name for entry in entries}


def parts(entries):
    return {entry.name.split("tile")[1].split(".")[0] for entry in entries}


def test_two_folds_change_places_and_share_no_part(tiles):
    a, b = (fold(tiles, number, seed=3, grouping=TILE) for number in (0, 1))
    assert names(a.train) == names(b.test)
    assert names(a.test) == names(b.train)
    assert not parts(a.train) & parts(a.test)
    for side in a.counts().values():
        assert side[GOOD] == 2
        assert {side["crack"], side["hole"]} <= {2, 4}
    assert Counter(e.defect_type for e in a.train + a.test) == {"crack": 6, "hole": 6, GOOD: 4}


def test_a_split_is_a_function_of_its_seed(tiles):
    assert fold(tiles, 0, seed=1, grouping=TILE) == fold(tiles, 0, seed=1, grouping=TILE)
    assert len({fold(tiles, 0, seed=s, grouping=TILE).train for s in range(8)}) > 1


def test_few_shots_come_from_different_parts_and_their_twins_from_nowhere(tiles):
    split = few_shot(tiles, 2, grouping=TILE)
    assert split.counts()["train"] == {"crack": 2, "hole": 2, GOOD: 2}
    assert not parts(split.train) & parts(split.test)
    twins = [entry.name for entry in split.left_out]
    assert len(twins) == 4
    assert len(split.train) + len(split.test) + len(twins) == len(tiles.items)
    with pytest.raises(InputError, match="crack has 3, hole has 3"):
        few_shot(tiles, 4, grouping=TILE)


def test_the_same_image_under_two_names_stays_on_one_side(tiles):
    for i in range(5):
        source = tiles.root / "crack/exp0_tile0"
        for suffix in (".jpg", ".png"):
            shutil.copy(source.with_suffix(suffix), tiles.root / f"hole/copy_tile{50 + i}{suffix}")
    dataset = read_dataset(tiles.root)
    for seed in range(4):
        split = fold(dataset, 0, seed=seed)
        assert not {e.sha256 for e in split.train} & {e.sha256 for e in split.test}


def test_good_images_that_a_layout_keeps_for_testing_are_kept(tmp_path):
    for make, kept in ((mvtec, 1), (loco, 2)):
        dataset = read_dataset(make(tmp_path / make.__name__))
        for split in (fold(dataset, 0), few_shot(dataset, 1), whole(dataset)):
            good = [e.name for e in split.test if e.defect_type == GOOD]
            assert len(good) == kept
            assert all(name.startswith(("test/", "validation/")) for name in good)


def test_numbers_that_are_near_are_one_part(tmp_path):
    numbers = [100, 150, 299, 500, 1000, 1001]
    for number in numbers:
        write(tmp_path / f"crack/exp1_num_{number}.jpg", image(number))
        write(tmp_path / f"crack/exp1_num_{number}.png", mask())
    items = read_dataset(tmp_path).items
    groups = SameWorkpiece(r"num_(\d+)", 200)(items)
    found = {tuple(sorted(int(i.path.stem.split("_")[2]) for i in g)) for g in groups}
    assert found == {(100, 150, 299), (500,), (1000, 1001)}


@pytest.mark.parametrize(
    ("grouping", "message"),
    [
        (SameWorkpiece("("), "not a regular expression"),
        (SameWorkpiece(r"part(\d+)"), "does not match crack/exp0_tile0.jpg"),
        (SameWorkpiece(r"(exp\d)", 5), "'exp0' in .* is no number"),
    ],
)
def test_grouping_that_cannot_be(tiles, grouping, message):
    with pytest.raises(InputError, match=message):
        fold(tiles, 0, grouping=grouping)


def test_images_with_a_fault_are_left_out_and_named(tiles):
    write(tiles.root / "hole/exp0_tile1.png", mask(0))
    split = fold(read_dataset(tiles.root), 0)
    ((name, reason),) = ((e.name, e.reason) for e in split.left_out)
    assert name == "hole/exp0_tile1.jpg"
    assert reason.startswith("hole/exp0_tile1.png: the mask is empty")


def test_a_split_is_written_read_and_used(tiles, tmp_path):
    split = fold(tiles, 0, grouping=TILE)
    path = tmp_path / "runs" / "split.json"
    write_split(split, path)
    assert read_split(path, tiles) == split
    for side in ("train", "test"):
        samples = samples_of(tiles, split, side)
        assert {s.path.name for s in samples} == {
            n.split("/")[1] for n in names(getattr(split, side))
        }


def test_a_dataset_that_is_not_the_one_that_was_split(tiles):
    split = fold(tiles, 0)
    changed = tiles.root / split.train[0].name
    write(changed, image(9999))
    with pytest.raises(InputError, match=f"changed since the split: {split.train[0].name}"):
        samples_of(read_dataset(tiles.root), split, "train")
    changed.unlink()
    with pytest.raises(InputError, match=f"lacks images of the split: {split.train[0].name}"):
        samples_of(read_dataset(tiles.root), split, "train")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "format: Input should be 'defectrt-split'"),
        ({"more": 1}, "more: Extra inputs"),
        ({"train": [{"name": "a", "defect_type": "b", "sha256": "no"}]}, r"train\.0\.sha256"),
    ],
)
def test_a_file_that_is_no_split(tiles, tmp_path, change, message):
    path = tmp_path / "split.json"
    path.write_text(json.dumps(fold(tiles, 0).model_dump() | change))
    with pytest.raises(InputError, match=message):
        read_split(path, tiles)


def test_a_split_is_of_one_reading_of_a_dataset(tmp_path):
    dataset = read_dataset(loco(tmp_path / "cable"), "loco-classes")
    write_split(fold(dataset, 0), tmp_path / "split.json")
    with pytest.raises(InputError, match="add --layout loco-classes"):
        read_split(tmp_path / "split.json", read_dataset(tmp_path / "cable"))


def test_an_image_on_both_sides_is_refused(tiles, tmp_path):
    split = fold(tiles, 0)
    path = tmp_path / "split.json"
    write_split(split.model_copy(update={"test": split.test + split.train[:1]}), path)
    with pytest.raises(InputError, match="1 images are on both sides"):
        read_split(path, tiles)


def test_the_lists_of_visa_are_splits(tmp_path):
    dataset = read_dataset(visa(tmp_path))
    split = read_split(tmp_path / "split_csv" / "1cls.csv", dataset)
    assert split.counts() == {
        "train": {GOOD: 1},
        "test": {GOOD: 1, "melded": 1, "combined": 1, "wax missing": 1},
    }
    assert len(samples_of(dataset, split, "test")) == 4
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="columns image and split"):
        read_split(tmp_path / "other.csv", dataset)


def test_what_a_run_has_seen_is_refused_by_content(tiles, tmp_path):
    split = fold(tiles, 0, grouping=TILE)
    train, test = (samples_of(tiles, split, side) for side in ("train", "test"))
    base, run = tmp_path / "base", tmp_path / "run"
    for folder, samples, model in ((base, train[:2], ""), (run, train[2:], base / "model")):
        folder.mkdir()
        entries = [{"name": s.path.name, "sha256": s.sha256()} for s in samples]
        record = {"image_size": 32, "prompts": [], "base_model": str(model), "dataset": entries}
        (folder / "run.json").write_text(json.dumps(record))
    assert seen(run).keys() == {s.sha256() for s in train}  # of the base as well
    refuse_seen(test, run)
    renamed = tmp_path / "elsewhere.jpg"
    shutil.copy(train[0].path, renamed)
    with pytest.raises(InputError, match=r"learned from 1 of the images.*elsewhere\.jpg"):
        refuse_seen([*test, Sample(renamed, "crack", train[0].image, train[0].mask)], run)
    with pytest.raises(InputError, match="not a run"):
        seen(tmp_path)


def test_the_real_tiles_are_split_by_tile(magnetic_tile):
    dataset = read_dataset(magnetic_tile)
    split = fold(dataset, 0, grouping=SameWorkpiece(r"num_(\d+)", 200))
    numbers = {
        side: np.array(sorted(int(e.name.split("num_")[1][:-4]) for e in getattr(split, side)))
        for side in ("train", "test")
    }
    gaps = np.abs(numbers["train"][:, None] - numbers["test"][None])
    assert gaps.min() >= 200
    for defect_type in dataset.defect_types:
        sides = [split.counts()[side][defect_type] for side in ("train", "test")]
        assert abs(sides[0] - sides[1]) <= 6
    assert len(split.left_out) == 2
