"""Masks are found, read without a threshold in the middle, and never lost on the way down."""

from __future__ import annotations

from pathlib import PurePath

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support.outputs import save

from defectrt.config.synthesis import SynthesisConfig
from defectrt.errors import InputError, UsageError
from defectrt.masks.folder import MaskFolder
from defectrt.masks.reading import read_mask
from defectrt.masks.resizing import latent_mask, reduce_mask
from defectrt.synthesis.refinement import attention_witness, change_witness, refine


def folder(root, *names):
    for name in names:
        save(root / name, np.zeros((2, 2), np.uint8))
    return MaskFolder(root)


@pytest.mark.parametrize("name", ["7.png", "7_mask.png", "7.bmp", "7_mask.tif", "7_mask.PNG"])
def test_a_mask_is_found_by_its_images_name(tmp_path, name):
    found = folder(tmp_path, f"a/{name}", "7.png", "a/77.png", "b/7.png").mask_of(
        PurePath("a/7.jpg")
    )
    assert found == tmp_path / "a" / name


@pytest.mark.parametrize("stem", ["a[1]*", "dots.in.name", "with space", "ü", "7_mask"])
def test_names_of_any_kind(tmp_path, stem):
    found = folder(tmp_path, f"{stem}.png", f"{stem}x.png").mask_of(PurePath(f"{stem}.jpg"))
    assert found.name == f"{stem}.png"


def test_no_mask_and_two_masks(tmp_path):
    with pytest.raises(InputError, match=r"7.jpg: no mask; expected .*7_mask.png"):
        folder(tmp_path, "77.png", ".7.png", ".thumbs/7.png").mask_of(PurePath("7.jpg"))
    with pytest.raises(InputError, match=r"more than one mask: 7.bmp, 7.png"):
        folder(tmp_path, "7.png", "7.bmp").mask_of(PurePath("7.jpg"))
    found = folder(tmp_path, "7_mask.png").mask_of(PurePath("7.jpg"))
    assert found.name == "7_mask.png"  # the others may be the images


def test_several_masks_of_one_image_are_not_taken_for_one(tmp_path):
    masks = folder(tmp_path, "7_mask_0.png", "7_0.png", "7/0.png")
    with pytest.raises(InputError, match="no mask"):
        masks.mask_of(PurePath("7.png"))


def test_masks_of_two_colours_in_any_format(tmp_path):
    shape = np.zeros((6, 7), bool)
    shape[2:4, 3] = True
    image = Image.fromarray(shape)
    palette = image.convert("P")
    palette.putpalette([0, 0, 0, 0, 0, 1] + [9] * 762)
    palette = palette.point(lambda v: min(v, 1))
    for name, mask in (("bit.png", image), ("bit.tif", image), ("palette.png", palette)):
        mask.save(tmp_path / name)
        np.testing.assert_array_equal(read_mask(tmp_path / name, (6, 7)), shape)


@pytest.mark.parametrize("value", [1, 3, 127, 255])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_any_value_but_zero_is_defect(tmp_path, value, dtype):
    array = np.zeros((5, 6), dtype)
    array[2, 3] = value
    save(tmp_path / "m.png", array)
    assert np.argwhere(read_mask(tmp_path / "m.png", (5, 6))).tolist() == [[2, 3]]


def test_the_alpha_of_a_mask_does_not_count(tmp_path):
    array = np.zeros((4, 4, 4), np.uint8)
    array[..., 3] = 255
    array[1, 1, 0] = 9
    save(tmp_path / "m.png", array)
    assert read_mask(tmp_path / "m.png", (4, 4)).sum() == 1


def test_wrong_size_and_empty(tmp_path):
    save(tmp_path / "m.png", np.zeros((5, 6), np.uint8))
    with pytest.raises(InputError, match="the mask is 6x5, its image 5x6"):
        read_mask(tmp_path / "m.png", (6, 5))
    with pytest.raises(InputError, match="the mask is empty"):
        read_mask(tmp_path / "m.png", (5, 6))


@given(
    st.integers(16, 200), st.integers(0, 10_000), st.integers(0, 10_000), st.sampled_from([8, 16])
)
def test_one_pixel_is_never_lost(side, y, x, size):
    mask = np.zeros((side, side), bool)
    mask[y % side, x % side] = True
    small = latent_mask(mask, size, size)
    assert small.shape == (1, size, size)
    assert small.dtype == np.float32
    assert small.sum() == 1
    assert small[0, y % side * size // side, x % side * size // side] == 1


def test_reduction_is_max_pooling_where_cells_divide_evenly():
    mask = np.random.default_rng(0).random((32, 32)) < 0.05
    expected = mask.reshape(8, 4, 8, 4).any(axis=(1, 3))
    np.testing.assert_array_equal(reduce_mask(mask, 8, 8), expected)


# ---- refinement, Eq. 13 -----------------------------------------------------------------------


def square(y=8, x=8, size=16, side=32):
    mask = np.zeros((side, side), bool)
    mask[y : y + size, x : x + size] = True
    return mask


def maps():
    """Attention on the left half of the mask, change on its upper half."""
    attention = np.full((8, 8), 0.05, np.float32)
    attention[2:6, 2:4] = 0.3
    attention[0, 0] = 1.0  # outside the mask; must not set the scale
    change = np.zeros((32, 32), np.float32)
    change[8:16, 8:24] = 0.5
    change[0:4, 0:4] = 0.5  # outside the mask
    return attention, change


@pytest.mark.parametrize(
    ("method", "y", "x"),
    [
        ("attention", slice(8, 24), slice(8, 16)),
        ("change", slice(8, 16), slice(8, 24)),
        ("both", slice(8, 16), slice(8, 16)),
        ("none", slice(8, 24), slice(8, 24)),
    ],
)
def test_each_witness_sees_its_part(method, y, x):
    mask = square()
    refined = refine(mask, *maps(), SynthesisConfig(refine=method))
    expected = np.zeros_like(mask)
    expected[y, x] = True
    assert not refined[~mask].any()
    overlap = (refined & expected).sum() / (refined | expected).sum()
    assert overlap > 0.85


@given(st.integers(0, 2**32 - 1), st.sampled_from(["attention", "change", "both", "none"]))
def test_a_refined_mask_never_leaves_the_mask(seed, method):
    rng = np.random.default_rng(seed)
    mask = rng.random((32, 32)) < 0.5
    attention = rng.random((8, 8)).astype(np.float32)
    change = rng.random((32, 32)).astype(np.float32)
    refined = refine(mask, attention, change, SynthesisConfig(refine=method))
    assert not refined[~mask].any()


def test_the_attention_counts_relative_to_its_maximum_in_the_mask():
    attention, _ = maps()
    low = attention_witness(square(), attention * 0.01, 0.5)
    np.testing.assert_array_equal(low, attention_witness(square(), attention, 0.5))
    assert not attention_witness(square(), np.zeros((8, 8), np.float32), 0.5).any()


def test_nothing_changed_means_an_empty_label():
    attention, change = maps()
    for method in ("change", "both"):
        assert not refine(square(), attention, change * 0, SynthesisConfig(refine=method)).any()


def test_levels_and_specks():
    change = np.full((32, 32), 0.05, np.float32)
    assert change_witness(change, 0.04, 1.0).all()
    assert not change_witness(change, 0.06, 1.0).any()
    speck = np.zeros((32, 32), np.float32)
    speck[16, 16] = 1
    how = SynthesisConfig(refine_smooth=0.0)
    assert not refine(square(), maps()[0], speck, how).any()
    assert refine(square(), maps()[0], speck, how.replace(refine_min_area=1)).sum() == 1


def test_impossible_settings():
    with pytest.raises(UsageError, match=r"refine: .*'attention', 'change', 'both' or 'none'"):
        SynthesisConfig(refine="magic")
    for share in ("refine_threshold", "min_change"):
        with pytest.raises(UsageError, match=f"{share}: .*less than or equal to 1, not 2"):
            SynthesisConfig(**{share: 2})
