"""Figures by hand: precision and recall, F1, PRO, AUROC; and that a weight counts as a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from defectrt.training.data.samples import Sample
from defectrt.training.proving import figures as f

# levels from low to high: from the top 1 of 1, 1 of 2, 2 of 4 are defect
POSITIVE, NEGATIVE = np.array([[0, 1, 0, 1]]), np.array([[2, 1, 1, 0]])


def test_average_precision():
    assert f.average_precision(POSITIVE, NEGATIVE) == pytest.approx(0.5 * 1 + 0.5 * 0.5)


def test_average_precision_of_chance_is_the_share_of_defects():
    assert f.average_precision(np.array([[3]]), np.array([[9]])) == pytest.approx(0.25)


def test_best_f1():
    assert f.best_f1(np.array([[1, 1, 2]]), np.array([[9, 0, 1]])) == pytest.approx(
        2 * 0.75 * 0.75 / 1.5
    )


def test_pro():
    # regions: one at the top level, one at the second; false positives .0 .25 .5 1
    # under (0,.5) (.25,.5) (.5,1) up to .3: .25 * .5 + .05 * (.5 + .6) / 2
    assert f.pro(np.array([[0.0, 1, 0, 1]]), NEGATIVE) == pytest.approx(0.1525 / 0.3)


def test_pro_counts_a_small_region_as_much_as_a_large_one():
    samples, logits = _pictures()
    test = f.test_set(samples, [0, 1, 2])
    found = f.figures(test, f.tally_of(samples, logits), np.ones((1, 3)))
    assert found["pro"] == pytest.approx(1)


def test_image_auroc_counts_ties_half():
    score, bad = np.array([1.0, 2, 2, 3]), np.array([False, False, True, True])
    assert f.auroc(*f.image_levels(score, bad, np.ones((1, 4)))) == pytest.approx(3.5 / 4)
    without = np.array([[1.0, 0, 1, 1]])
    assert f.auroc(*f.image_levels(score, bad, without)) == pytest.approx(1)


def test_levels_keep_the_order_and_the_ends():
    levels = f.level_of(np.array([-99, -1, 0, 1, 99], np.float32))
    assert levels[0] == 0
    assert levels[-1] == f.LEVELS - 1
    assert (np.diff(levels) > 0).all()


def _pictures() -> tuple[list[Sample], list[np.ndarray]]:
    """Two pictures with a defect of 4 and of 16 px, found all but sure, and a good one."""
    samples, logits = [], []
    for kind, side in (("hole", 2), ("dent", 4), ("good", 0)):
        mask = np.zeros((16, 16), bool)
        mask[3 : 3 + side, 3 : 3 + side] = True
        image = np.full((16, 16, 3), 100, np.uint8)
        image[mask] = 50 if kind == "hole" else 20
        samples.append(Sample(Path(f"{kind}.png"), kind, image, mask))
        logits.append(np.where(mask, 3, -3).astype(np.float32))
    return samples, logits


def test_figures_by_type_size_and_contrast():
    samples, logits = _pictures()
    logits[0][:] = -5  # the small, faint hole is missed
    test = f.test_set(samples, [0, 1, 2])
    assert test.area.tolist() == [4, 16]
    assert test.contrast == pytest.approx([0.5, 0.8])
    found = f.figures(test, f.tally_of(samples, logits), np.ones((1, 3)))
    assert found["pixel_ap dent"] == found["pixel_ap size large"] == pytest.approx(1)
    assert found["pixel_ap contrast strong"] == pytest.approx(1)
    assert found["pixel_ap hole"] < 0.05
    assert found["pixel_ap size small"] < 0.05
    assert found["pixel_ap"] == pytest.approx(16 / 20 + 4 / 20 * 20 / 768)


def test_a_weight_counts_as_a_picture():
    samples, logits = _pictures()
    logits[0][8:] = 3
    twice, none = [samples[i] for i in (0, 0, 2)], [logits[i] for i in (0, 0, 2)]
    test = f.test_set(samples, [0, 1, 2])
    weighted = f.figures(test, f.tally_of(samples, logits), np.array([[2.0, 0, 1]]))
    plain = f.figures(f.test_set(twice, [0, 1, 2]), f.tally_of(twice, none), np.ones((1, 3)))
    for name in ("pixel_ap", "pixel_f1", "pro", "image_auroc"):
        assert weighted[name] == pytest.approx(plain[name])


def test_errors_say_where_they_lie():
    samples, logits = _pictures()
    logits[0][:] = -5  # the hole is missed
    logits[1][5:7, 3:7] = -5  # half of the dent is missed
    logits[2][0, :3] = 3  # a false alarm of 3 px on the good picture, and one of 1 px elsewhere
    logits[0][0, 0] = 3
    found = f.errors(f.test_set(samples, [0, 1, 2]), f.tally_of(samples, logits))
    assert found == {"hit": 0.5, "covered": 0.5, "alarms": 1.0, "false_on_good": 0.75}
