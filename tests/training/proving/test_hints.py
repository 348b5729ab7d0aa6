"""Why made defects may not help, from what they look like."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from defectrt.training.data.samples import Sample
from defectrt.training.proving.figures import test_set as of_side
from defectrt.training.proving.hints import few, looks, unlike


def _holes(radius: int = 6, depth: int = 60, labelled: int = 0) -> list[Sample]:
    """Soft dark holes; ``labelled`` px wider than they are."""
    made = []
    for i in range(6):
        hole = np.zeros((64, 64), np.uint8)
        cv2.circle(hole, (32, 32), radius, 1, -1)
        grey = 150 - (depth + i) * cv2.GaussianBlur(hole.astype(np.float32), (0, 0), 1)
        side = 2 * abs(labelled) + 1
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
        label = (cv2.dilate if labelled > 0 else cv2.erode)(hole, disc) > 0
        image = np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)
        made.append(Sample(Path(f"{i}.png"), "hole", image, label))
    return made


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (_holes(), []),
        (_holes(depth=120), ["fainter or stronger"]),
        (_holes(radius=12), ["labels of made ones are 3"]),
        (_holes(labelled=-2), ["labels of made ones are 0.4", "more tightly"]),
        (_holes(labelled=2), ["more loosely"]),
    ],
)
def test_differences_are_named(made, said):
    found = list(unlike(looks(_holes()), looks(made)))
    assert len(found) == len(said), found
    assert all(text in sentence for text, sentence in zip(said, found, strict=True)), found


def test_a_type_that_is_not_made_is_named():
    assert list(unlike(looks(_holes()), {})) == ["hole: none are made"]


def test_few_tested_defects_are_named():
    said = list(few(of_side(_holes(), [0, 0, 1, 1, 2, 2])))
    assert len(said) == 1
    assert "hole: only 6 defects on 3 workpieces" in said[0]
    assert list(few(of_side(_holes() * 5, range(30)))) == []
