"""What is one workpiece, and that none is on both sides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from defectrt.errors import InputError
from defectrt.training.data.samples import Sample
from defectrt.training.proving.workpieces import halves, workpieces


@pytest.fixture
def pictures(tmp_path):
    """Two workpieces, two exposures each: parts/a/1.png, 2.png and parts/b/3.png, 4.png."""
    rng = np.random.default_rng(0)
    made = []
    for piece, numbers in (("a", (101, 104)), ("b", (301, 305))):
        surface = np.kron(rng.uniform(60, 120, (8, 8)), np.ones((8, 8)))
        for gain, number in zip((1, 1.6), numbers, strict=True):
            path = tmp_path / piece / f"shot_{number}.png"
            path.parent.mkdir(exist_ok=True)
            grey = (surface * gain + rng.normal(0, 2, surface.shape)).astype(np.uint8)
            Image.fromarray(grey).save(path)
            image = np.repeat(grey[..., None], 3, axis=2)
            made.append(Sample(path, "hole", image, np.zeros((64, 64), bool)))
    return made


@pytest.mark.parametrize(
    ("group", "near", "found"),
    [
        ("auto", None, [0, 0, 2, 2]),
        ("folder", None, [0, 0, 2, 2]),
        (r"shot_(\d+)", 100, [0, 0, 2, 2]),
        (r"shot_(\d+)", None, [0, 1, 2, 3]),
    ],
)
def test_rules(pictures, group, near, found):
    assert workpieces(pictures, (group,), near) == found


def test_rules_join(pictures):
    assert workpieces(pictures, (r"shot_(\d+)", "auto")) == [0, 0, 2, 2]


def test_the_same_bytes_are_one_workpiece(pictures, tmp_path):
    again = tmp_path / "c" / "other_999.png"
    again.parent.mkdir()
    again.write_bytes(pictures[0].path.read_bytes())
    copy = Sample(again, "hole", pictures[0].image, pictures[0].mask)
    assert workpieces([*pictures, copy], (r"_(\d+)",))[-1] == 0


def test_a_picture_in_no_folder_of_its_workpiece_is_a_fault(pictures):
    with pytest.raises(InputError, match="lies in no folder of its workpiece"):
        workpieces([replace(pictures[0], defect_type="a")], ("folder",))


def test_halves_keep_workpieces_and_share_types():
    groups = [0, 0, 1, 1, 2, 3, 4, 5, 6, 7]
    types = ["hole"] * 5 + ["good"] * 5
    types[5] = "hole"
    for seed in range(20):
        train, test = halves(types, groups, np.random.default_rng(seed))
        assert not {groups[i] for i in train} & {groups[i] for i in test}
        assert sorted(train + test) == list(range(10))
        assert {types[i] for i in train} == {types[i] for i in test} == {"hole", "good"}


def test_a_type_of_one_workpiece_cannot_be_divided():
    with pytest.raises(InputError, match="crack: all pictures are of one workpiece"):
        halves(["crack", "crack", "good", "good"], [0, 0, 1, 2], np.random.default_rng(0))
