"""Training images: what is recognised, what is refused, and crops that keep masks exact."""

from __future__ import annotations

from functools import partial

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image

from defectrt.errors import InputError
from defectrt.training.data.crops import Augmentation, Crops
from defectrt.training.data.samples import (
    GOOD,
    Cache,
    Sample,
    Stored,
    hashes_of,
    image_size,
    names_of,
    read_good,
    read_pairs,
)


def image(h=40, w=50, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (h, w, 3), np.uint8)


def instance(h=40, w=50, y=10, x=20, size=6):
    mask = np.zeros((h, w), np.uint8)
    mask[y : y + size, x : x + size] = 255
    return mask


def write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image)


@pytest.mark.parametrize(
    ("images", "mask"),
    [
        ("a.jpg", "a.png"),
        ("a.png", "a_mask.png"),
        ("images/a.jpg", "masks/a.png"),
        ("images/a.png", "masks/a_mask.png"),
    ],
)
def test_layouts(tmp_path, images, mask):
    write(tmp_path / images, image())
    write(tmp_path / mask, instance())
    (sample,) = read_pairs(tmp_path, "hole")
    assert sample.defect_type == "hole"
    assert sample.image.shape == (40, 50, 3)
    assert sample.mask.sum() == 36


def test_any_value_but_zero_is_defect_unless_a_threshold_is_named(tmp_path):
    write(tmp_path / "a.jpg", image())
    write(tmp_path / "a.png", np.minimum(instance(), 3))
    assert read_pairs(tmp_path, "hole")[0].mask.sum() == 36
    with pytest.raises(InputError, match="empty"):
        read_pairs(tmp_path, "hole", mask_threshold=128)


def test_colours_are_red_green_blue(tmp_path):
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 2] = 255  # OpenCV writes blue, green, red
    write(tmp_path / "a.png", red)
    assert read_good(tmp_path)[0].image[0, 0].tolist() == [255, 0, 0]


def test_every_fault_is_listed_at_once(tmp_path):
    write(tmp_path / "ok.jpg", image())
    write(tmp_path / "ok.png", instance())
    write(tmp_path / "lone.jpg", image())
    write(tmp_path / "small.jpg", image())
    write(tmp_path / "small.png", instance(20, 20, 1, 1))
    write(tmp_path / "blank.jpg", image())
    write(tmp_path / "blank.png", instance() * 0)
    (tmp_path / "cut.jpg").write_bytes(b"\xff\xd8\xff")
    write(tmp_path / "cut.png", instance())
    with pytest.raises(InputError) as error:
        read_pairs(tmp_path, "hole")
    lines = str(error.value).splitlines()
    assert len(lines) == 4
    assert any("lone.jpg: it has no mask; expected lone_mask.png" in line for line in lines)
    assert any("20x20, its image 50x40" in line for line in lines)
    assert any("blank.png: the mask is empty" in line for line in lines)
    assert any("cut.jpg: not an image" in line for line in lines)


@pytest.mark.parametrize("read", [read_good, lambda d: read_pairs(d, "hole")])
def test_empty_and_missing_folders(tmp_path, read):
    with pytest.raises(InputError, match="no images"):
        read(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        read(tmp_path / "none")


def marked(h, w, defect_type="hole", seed=0):
    """An image whose red channel shows its mask, so that a crop can be checked against itself."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((h, w), bool)
    if defect_type != GOOD:
        y, x = rng.integers(0, [max(1, h - 5), max(1, w - 5)])
        mask[y : y + 5, x : x + 4] = True
    image = np.zeros((h, w, 3), np.uint8)
    image[..., 0] = np.where(mask, 220, 30)
    return Sample(None, defect_type, image, mask)


@pytest.mark.parametrize("size", [(64, 48), (32, 32), (20, 70), (10, 9)])
def test_crops_show_the_defect_and_keep_the_mask_exact(size):
    crops = Crops([marked(*size, seed=s) for s in range(5)], 32)
    for step in range(20):
        batch = crops.batch(step, 4)
        assert batch.pixels.shape == (4, 3, 32, 32)
        assert batch.mask.shape == (4, 1, 32, 32)
        assert batch.mask.any(axis=(1, 2, 3)).all()
        assert set(np.unique(batch.mask)) <= {0, 1}
        np.testing.assert_array_equal(batch.pixels[:, :1] > 0, batch.mask == 1)


@pytest.mark.parametrize("magnify", [2, 4])
def test_enlarged_crops_show_less_and_keep_the_mask_exact(magnify):
    samples = [marked(64, 48, seed=s) for s in range(3)]
    still = Augmentation("none", contrast=0, brightness=0)
    batch = Crops(samples, 32, magnify=magnify, augmentation=still).batch(0, 16)
    small = batch.mask[:, 0, ::magnify, ::magnify]
    assert batch.pixels.shape == (16, 3, 32, 32)
    assert small.shape[1:] == (32 // magnify, 32 // magnify)
    assert small.any(axis=(1, 2)).all()
    again = small.repeat(magnify, 1).repeat(magnify, 2)
    np.testing.assert_array_equal(batch.mask[:, 0], again)
    inside = cv2.erode(again[0], np.ones((3, 3))) > 0
    outside = cv2.dilate(again[0], np.ones((2 * magnify + 1, 2 * magnify + 1))) == 0
    assert (batch.pixels[0, 0][inside] > 0).all()
    assert (batch.pixels[0, 0][outside] < 0).all()


@pytest.mark.parametrize("size", [(64, 48), (50, 130), (32, 32), (20, 14)])
def test_whole_images_are_fitted_and_no_px_of_their_masks_is_lost(size):
    still = Augmentation("none", contrast=0, brightness=0)
    sample = marked(*size, seed=3)
    batch = Crops([sample], 32, magnify="fit", augmentation=still).batch(0, 2)
    assert batch.pixels.shape == (2, 3, 32, 32)
    np.testing.assert_array_equal(batch.pixels[0], batch.pixels[1])
    scale, inside = 32 / max(size), batch.mask[0, 0]
    ys, xs = (
        (32 / 2 + scale * (at + 0.5 - side / 2)).astype(int)
        for at, side in zip(np.nonzero(sample.mask), size, strict=True)
    )
    assert inside[ys, xs].all()
    around = inside[ys.min() - 1 : ys.max() + 2, xs.min() - 1 : xs.max() + 2]
    assert around.sum() <= (5 * scale + 2) * (4 * scale + 2)
    assert batch.pixels[0, 0][inside > 0].max() > -0.2
    assert (batch.pixels[0, 0][cv2.dilate(inside, np.ones((5, 5))) == 0] < 0).all()


def test_crops_are_a_function_of_seed_and_step():
    samples = [marked(64, 64, seed=s) for s in range(5)]
    a, b, c = Crops(samples, 32, seed=1), Crops(samples, 32, seed=1), Crops(samples, 32, seed=2)
    np.testing.assert_array_equal(a.batch(7, 4).pixels, b.batch(7, 4).pixels)
    assert not np.array_equal(a.batch(7, 4).pixels, a.batch(8, 4).pixels)
    assert not np.array_equal(a.batch(7, 4).pixels, c.batch(7, 4).pixels)


def test_shares_of_defect_types():
    samples = [marked(64, 64, "hole", s) for s in range(9)]
    samples += [marked(64, 64, "crack", 1), marked(64, 64, GOOD), marked(64, 64, GOOD)]
    defect_types = Crops(samples, 32, good=0.2).batch(0, 2000).defect_types
    share = {
        defect_type: defect_types.count(defect_type) / 2000
        for defect_type in ("hole", "crack", GOOD)
    }
    assert share == pytest.approx({"hole": 0.4, "crack": 0.4, GOOD: 0.2}, abs=0.04)


def test_nothing_to_train_on():
    with pytest.raises(InputError, match="no images to train on"):
        Crops([], 32)


def test_nothing_is_varied_that_is_not_to_be():
    samples = [marked(32, 32, seed=1)]
    still = Augmentation(flip="none", contrast=0, brightness=0)
    batch = Crops(samples, 32, augmentation=still).batch(0, 8)
    expected = samples[0].image.transpose(2, 0, 1) / 127.5 - 1
    np.testing.assert_allclose(batch.pixels, np.broadcast_to(expected, (8, 3, 32, 32)), atol=1e-6)
    with pytest.raises(InputError, match="flip 'up': one of both, horizontal"):
        Augmentation(flip="up")


@pytest.mark.parametrize(
    ("options", "views"),
    [
        ({"flip": "none"}, 1),
        ({"flip": "horizontal"}, 2),
        ({"flip": "vertical"}, 2),
        ({"flip": "both"}, 4),
        ({"flip": "none", "turn": True}, 4),
        ({"flip": "both", "turn": True}, 8),
    ],
)
def test_every_view_of_a_crop_turns_its_mask_alike(options, views):
    vary = Augmentation(contrast=0, brightness=0, **options)
    batch = Crops([marked(32, 32, seed=1)], 32, augmentation=vary).batch(0, 200)
    np.testing.assert_array_equal(batch.pixels[:, :1] > 0, batch.mask == 1)
    assert len({m.tobytes() for m in batch.mask}) == views


def test_sixteen_bits_and_grey_lose_nothing(tmp_path):
    deep = np.full((32, 32), 40_000, np.uint16)
    deep[0] = 40_001
    cv2.imwrite(str(tmp_path / "a.png"), deep)
    (sample,) = read_good(tmp_path)
    assert sample.image.dtype == np.uint16
    batch = Crops([sample], 32, augmentation=Augmentation("none", False, 0, 0)).batch(0, 1)
    rows = np.unique(batch.pixels[0].mean(axis=(0, 2)))
    assert rows == pytest.approx([40_000 / 32767.5 - 1, 40_001 / 32767.5 - 1], abs=1e-6)


def test_images_are_decoded_when_needed_and_few_are_kept(tmp_path):
    for i in range(4):
        cv2.imwrite(str(tmp_path / f"{i}.png"), image(32, 32, i))
    reads = []

    def read(i):
        reads.append(i)
        return image(32, 32, i), np.zeros((32, 32), bool)

    one = 32 * 32 * 4  # an image and its mask
    cache = Cache(limit=2 * one)
    samples = [Stored(tmp_path / f"{i}.png", GOOD, partial(read, i), cache) for i in range(4)]
    assert reads == []
    for i in (0, 1, 0, 2, 0, 1):
        samples[i].image, samples[i].mask
    assert reads == [0, 1, 2, 1]  # 1 was the one not used for longest when 2 came
    large = Stored(tmp_path / "0.png", GOOD, partial(read, 3), Cache(limit=1))
    assert large.image.shape[:2] == large.mask.shape
    assert reads == [0, 1, 2, 1, 3]  # decoded once though larger than the limit


def test_an_image_too_large_is_refused_by_its_header(tmp_path):
    import struct
    import zlib

    header = struct.pack(">IIBBBBB", 200_000, 200_000, 8, 0, 0, 0, 0)
    chunk = b"IHDR" + header
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk
    (tmp_path / "bomb.png").write_bytes(data + struct.pack(">I", zlib.crc32(chunk)))
    with pytest.raises(InputError, match=r"bomb\.png"):
        read_good(tmp_path)


def test_a_turned_photograph_has_the_size_it_is_seen_in(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(image(20, 30)).save(tmp_path / "a.jpg", exif=exif)
    assert image_size(tmp_path / "a.jpg") == (30, 20)
    assert read_good(tmp_path)[0].image.shape == (30, 20, 3)


def test_pictures_of_one_name_are_told_apart_and_all_have_their_hash(tmp_path):
    found = []
    for place, level in (("line1", 10), ("line2", 20), ("line2", 30)):
        path = tmp_path / place / ("000.png" if level < 30 else "001.png")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes([level]))
        found.append(Sample(path, "hole", np.zeros((4, 4, 3), np.uint8), np.ones((4, 4), bool)))
    assert names_of(found)[2] == "hole/001.png"
    assert names_of(found)[0] == f"hole/{tmp_path.as_posix()}/line1/000.png"
    assert sorted(hashes_of(found).values()) == sorted(sample.sha256() for sample in found)
    assert len(hashes_of(found)) == 3
