"""Cut-paste: the defect on another picture, its surroundings matched, all else untouched."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from defectrt.training.data.samples import Sample
from defectrt.training.proving.arms import CUT_PASTE, HEALTHY, REAL, arms, cut_paste
from defectrt.training.proving.config import ProveConfig


def _sample(kind: str, level: int, side: int = 64) -> Sample:
    image = np.full((side, side, 3), level, np.uint8)
    mask = np.zeros((side, side), bool)
    if kind != "good":
        mask[20:28, 30:36] = True
        image[mask] = level - 60
    return Sample(Path(f"{kind}.png"), kind, image, mask)


def test_the_defect_is_there_and_its_contrast_too():
    made = cut_paste([_sample("hole", 200)], [_sample("good", 120)], 8, seed=0)
    assert len(made) == 8
    for sample in made:
        assert sample.defect_type == "hole"
        assert 48 * 0.4 < sample.mask.sum() < 48 * 1.9
        assert abs(int(sample.image[sample.mask].min()) - 60) <= 3
        far = np.ones(sample.mask.shape, bool)
        ys, xs = np.nonzero(sample.mask)
        far[max(0, ys.min() - 12) : ys.max() + 13, max(0, xs.min() - 12) : xs.max() + 13] = False
        assert (sample.image[far] == 120).all()


def test_places_and_shapes_vary_and_come_again_with_the_seed():
    shots, good = [_sample("hole", 200)], [_sample("good", 120)]
    masks = [s.mask.tobytes() for s in cut_paste(shots, good, 6, seed=0)]
    assert len(set(masks)) == 6
    assert masks == [s.mask.tobytes() for s in cut_paste(shots, good, 6, seed=0)]
    assert masks != [s.mask.tobytes() for s in cut_paste(shots, good, 6, seed=1)]


def test_what_does_not_fit_is_left_out():
    assert cut_paste([_sample("hole", 200)], [_sample("good", 120, side=9)], 3, seed=0) == []


def test_arms_are_every_set_at_every_share_and_number():
    config = ProveConfig(
        synthetic=("a", "b"), share="0.25,0.5", per_real=("10,40",), healthy=("painted",)
    )
    found = [arm.name for arm in arms(config, ["a", "b"])]
    assert found[:3] == [REAL, CUT_PASTE, HEALTHY]
    assert len(found) == 3 + 2 * 2 * 2
    assert "real + b, share 0.25, 40 per real" in found
