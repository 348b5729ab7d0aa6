"""Which made pictures are picked: all kinds, and none twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from defectrt.training.data.samples import Sample
from defectrt.training.proving.picking import far_apart, some


def _sample(number, kind, side, level):
    image, mask = np.full((40, 40, 3), 140, np.uint8), np.zeros((40, 40), bool)
    mask[10 : 10 + side, 10 : 10 + side] = True
    image[mask] = level
    return Sample(Path(f"{kind}{number}.png"), kind, image, mask)


#: Twenty small dark ones that are all but alike, one large and one bright.
ALIKE = [_sample(i, "hole", 5, 40 + i % 2) for i in range(20)]
OTHERS = [_sample(20, "hole", 20, 40), _sample(21, "hole", 5, 250)]


def test_what_is_unlike_the_rest_is_picked_first():
    names = [s.path.name for s in far_apart([*ALIKE, *OTHERS], 3)]
    assert {"hole20.png", "hole21.png"} <= set(names)
    assert len(set(names)) == 3


def test_types_take_turns_and_all_there_are_is_the_most():
    cracks = [_sample(i, "crack", 3 + i, 90) for i in range(3)]
    picked = far_apart([*ALIKE, *cracks], 4)
    assert [s.defect_type for s in picked] == ["crack", "hole"] * 2
    assert len({id(s) for s in far_apart([*ALIKE, *cracks], 99)}) == 23


def test_more_by_chance_begin_alike():
    few, more = some(ALIKE, 3, 5), some(ALIKE, 9, 5)
    assert few == more[:3]
    assert few != some(ALIKE, 3, 6)
