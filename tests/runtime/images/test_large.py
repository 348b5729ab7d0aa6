"""The largest image that is allowed, through a whole job."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from support.outputs import records

from defectrt.images.reading import read_image
from defectrt.images.types import MAX_PIXELS
from defectrt.synthesis.job import synthesize


@pytest.mark.slow
def test_an_image_of_100_megapixels_gets_a_defect_and_keeps_all_other_pixels(tmp_path):
    images, masks, out = tmp_path / "images", tmp_path / "masks", tmp_path / "out"
    images.mkdir()
    masks.mkdir()
    image = np.full((10_000, 10_000), 150, np.uint8)
    image[::7] = 140
    mask = np.zeros_like(image)
    mask[9_900:9_930, 20:40] = 255
    assert image.size == MAX_PIXELS
    cv2.imwrite(str(images / "plate.png"), image)
    cv2.imwrite(str(masks / "plate.png"), mask)
    synthesize(images, out, masks=masks, defect="hole", quiet=True).check()
    (r,) = records(out)
    made = read_image(out / r["image"])[..., 0]
    changed = np.argwhere(made != image)
    assert len(changed) > 100
    assert (changed.min(axis=0) >= [9_890, 10]).all()
    assert (changed.max(axis=0) <= [9_940, 50]).all()
