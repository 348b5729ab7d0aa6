"""The generator: the same seed draws the same, and a defect changes its mask and no more."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from defectrt.training.data import read_good, read_pairs
from defectrt.training.surfaces import DEFECTS, SURFACES, draw, main


@pytest.mark.parametrize("kind", SURFACES)
def test_surfaces_are_pictures_with_texture_and_repeat(kind):
    picture, mask = draw(5, kind, 64)
    np.testing.assert_array_equal(picture, draw(5, kind, 64)[0])
    assert not np.array_equal(picture, draw(6, kind, 64)[0])
    assert picture.shape == (64, 64, 3)
    assert picture.dtype == np.uint8
    assert not mask.any()
    assert 30 < picture.mean() < 225
    assert picture.mean(axis=2).std() > 3


@pytest.mark.parametrize("defect", DEFECTS)
@pytest.mark.parametrize("kind", SURFACES)
def test_a_defect_changes_its_mask_and_no_more(kind, defect):
    """Shading looks one pixel around, so the change may reach one pixel past the mask."""
    good = draw(7, kind, 96)[0].astype(int)
    bad, mask = draw(7, kind, 96, defect)
    assert 10 < mask.sum() < 0.3 * mask.size
    moved = np.abs(bad.astype(int) - good).max(axis=2)
    reach = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    assert moved[~reach].max() == 0
    assert moved[mask].mean() > 4


def test_what_it_writes_is_what_training_reads(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["surfaces", str(tmp_path), "--count", "6", "--size", "64"])
    main()
    assert len(read_good(tmp_path / "good")) == 6
    for defect in DEFECTS:
        samples = read_pairs(tmp_path / defect, defect)
        assert len(samples) == 6
        assert all(sample.picture.shape == (64, 64, 3) for sample in samples)
