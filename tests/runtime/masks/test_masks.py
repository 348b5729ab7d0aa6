"""Masks are found, read without a threshold in the middle, and never lost on the way down."""

from __future__ import annotations

from pathlib import PurePath

import cv2
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
from defectrt.synthesis.acceptance import unseen
from defectrt.synthesis.refinement import appeared, attention_witness, grain, refine


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


def flat(side=32):
    return np.full((side, side, 3), 0.5, np.float32)


def maps():
    """Attention on the left half of the mask, change on its upper half."""
    attention = np.full((8, 8), 0.05, np.float32)
    attention[2:6, 2:4] = 0.3
    attention[0, 0] = 1.0  # outside the mask; must not set the scale
    after = flat()
    after[8:16, 8:24] += 0.4
    after[0:4, 0:4] += 0.4  # outside the mask
    return attention, after


def refined(mask, attention, after, config):
    return refine(mask, attention, appeared(mask, flat(), after, config), config)


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
    label = refined(mask, *maps(), SynthesisConfig(refine=method))
    expected = np.zeros_like(mask)
    expected[y, x] = True
    assert not label[~mask].any()
    overlap = (label & expected).sum() / (label | expected).sum()
    assert overlap > 0.85


@given(st.integers(0, 2**32 - 1), st.sampled_from(["attention", "change", "both", "none"]))
def test_a_refined_mask_never_leaves_the_mask(seed, method):
    rng = np.random.default_rng(seed)
    mask = rng.random((32, 32)) < 0.5
    attention = rng.random((8, 8)).astype(np.float32)
    after = rng.random((32, 32, 3)).astype(np.float32)
    assert not refined(mask, attention, after, SynthesisConfig(refine=method))[~mask].any()


def test_the_attention_counts_relative_to_its_maximum_in_the_mask():
    attention, _ = maps()
    low = attention_witness(square(), attention * 0.01, 0.5)
    np.testing.assert_array_equal(low, attention_witness(square(), attention, 0.5))
    assert not attention_witness(square(), np.zeros((8, 8), np.float32), 0.5).any()


def test_nothing_changed_means_an_empty_label():
    attention, _ = maps()
    for method in ("change", "both"):
        assert not refined(square(), attention, flat(), SynthesisConfig(refine=method)).any()


def test_levels_and_specks():
    mask, after = square(), flat() - np.float32(0.05)
    for level, seen in ((0.04, 256), (0.06, 0)):
        assert appeared(mask, flat(), after, SynthesisConfig(min_change=level)).sum() == seen
    speck = flat()
    speck[16, 16] = 1
    how = SynthesisConfig(refine_smooth=0)
    assert not appeared(mask, flat(), speck, how).any()
    assert appeared(mask, flat(), speck, how.replace(refine_min_area=1)).sum() == 1


# ---- what a good surface does when it is painted anew -------------------------------------------


def surface(seed, strength, smooth, side=96):
    """Grain of a standard deviation on a slope of light."""
    rng = np.random.default_rng(seed)
    grain = cv2.GaussianBlur(rng.normal(size=(side, side)), (0, 0), smooth)
    level = np.linspace(0.4, 0.6, side) + strength * grain / grain.std()
    return np.repeat(level[..., None], 3, axis=2).astype(np.float32)


def painted_anew(seed, strength, smooth, mask):
    before = surface(seed, strength, smooth)
    return before, np.where(mask[..., None], surface(seed + 1000, strength, smooth), before)


def disc(radius=9, side=96):
    y, x = np.mgrid[:side, :side] - side / 2
    return y**2 + x**2 <= radius**2


def share(before, after, mask, **options):
    config = SynthesisConfig(**options)
    return unseen(config, float(appeared(mask, before, after, config).sum() / mask.sum())) is None


GRAINS = [(0.02, 0.7), (0.05, 0.7), (0.05, 1.5), (0.08, 1.0)]


@pytest.mark.parametrize(("strength", "smooth"), GRAINS)
def test_a_good_surface_that_is_painted_anew_shows_no_defect(strength, smooth):
    mask = disc()
    parts = [painted_anew(seed, strength, smooth, mask) for seed in range(40)]
    assert sum(share(*part, mask) for part in parts) <= 2
    if strength >= 0.05:
        assert sum(share(*part, mask, min_grain=0) for part in parts) > 20


@pytest.mark.parametrize(("strength", "smooth"), GRAINS)
def test_a_faint_defect_on_a_surface_that_is_painted_anew_is_seen(strength, smooth):
    mask, contrast = disc(), max(0.3, 5 * strength)
    for seed in range(40):
        before, after = painted_anew(seed, strength, smooth, mask)
        assert share(
            before, np.where(mask[..., None], after * np.float32(1 - contrast), after), mask
        )


def test_what_changed_beside_a_mask_does_not_count():
    mask = disc()
    after = np.where(mask[..., None], flat(96), np.float32(0))
    assert not appeared(mask, flat(96), after, SynthesisConfig()).any()


@given(st.integers(0, 2**32 - 1), st.floats(1, 3), st.floats(0, 4))
def test_more_of_the_same_change_never_shows_less_and_more_to_exceed_never_more(seed, more, grain):
    rng = np.random.default_rng(seed)
    before, mask = surface(seed, 0.04, 1.0, 32), rng.random((32, 32)) < 0.7
    change = cv2.GaussianBlur(rng.normal(0, 0.5, (32, 32, 3)).astype(np.float32), (0, 0), 2)
    config = SynthesisConfig(refine_min_area=0)
    weak, strong = (
        appeared(mask, before, before + np.float32(f) * change, config) for f in (1, more)
    )
    assert not (weak & ~strong).any()
    stricter = config.replace(min_grain=config.min_grain + grain)
    assert not (appeared(mask, before, before + change, stricter) & ~weak).any()


def test_an_edge_in_the_window_is_no_grain():
    """A workpiece that ends there, a busbar, print: a defect elsewhere shows as it did."""
    rng = np.random.default_rng(0)
    image = rng.normal(0.6, 0.01, (96, 96, 1)).repeat(3, 2).astype(np.float32)
    mask = np.zeros((96, 96), bool)
    mask[60:72, 60:72] = True
    bordered = image.copy()
    bordered[:, :12] = 0.05
    assert grain(bordered, 1) < 2.5 * grain(image, 1)
    config = SynthesisConfig()
    for before in (image, bordered):
        after = before.copy()
        after[mask] -= 0.12
        assert appeared(mask, before, after, config).sum() > 0.9 * mask.sum()


def test_the_grain_of_a_surface_is_what_varies_over_few_px():
    assert grain(flat(), 1) == pytest.approx(0, abs=1e-6)
    slope = np.linspace(0.3, 0.7, 96, dtype=np.float32)
    slope = np.broadcast_to(slope[:, None, None], (96, 96, 3))
    assert grain(slope, 1) < 0.02
    fine, coarse = (grain(surface(0, s, 1.0), 0) for s in (0.03, 0.06))
    assert fine == pytest.approx(0.03, rel=0.1)
    assert coarse == pytest.approx(0.06, rel=0.1)
    one = flat(96)
    one[..., 1] += np.random.default_rng(0).normal(0, 0.05, (96, 96)).astype(np.float32)
    assert grain(one, 0) == pytest.approx(0.05, rel=0.05)


def test_impossible_settings():
    with pytest.raises(UsageError, match=r"refine: .*'attention', 'change', 'both' or 'none'"):
        SynthesisConfig(refine="magic")
    for share in ("refine_threshold", "min_change"):
        with pytest.raises(UsageError, match=f"{share}: .*less than or equal to 1, not 2"):
            SynthesisConfig(**{share: 2})
