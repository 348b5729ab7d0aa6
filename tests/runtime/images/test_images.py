"""Images of every kind keep what they are; windows and composites touch only what they say."""

from __future__ import annotations

import io
import struct
import zlib
from contextlib import suppress
from io import FileIO

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from defectrt.errors import InputError
from defectrt.images import reading as images
from defectrt.images.compositing import composite, feather
from defectrt.images.png import encode_png
from defectrt.images.reading import read_image
from defectrt.images.window import Window, from_model, place_window, to_model

RNG = np.random.default_rng(0)


def colour(h=12, w=17, channels=3, dtype=np.uint8):
    return RNG.integers(0, np.iinfo(dtype).max, (h, w, channels), dtype, endpoint=True)


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
@pytest.mark.parametrize("channels", [1, 3])
def test_eight_bits(tmp_path, suffix, channels):
    image = colour(channels=channels)
    Image.fromarray(image.squeeze()).save(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(read_image(tmp_path / f"a.{suffix}"), image)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_stay_sixteen_bits(tmp_path, channels, suffix):
    image = colour(channels=channels, dtype=np.uint16)
    order = {1: None, 3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}[channels]
    stored = image[..., 0] if order is None else cv2.cvtColor(image, order)
    cv2.imwrite(str(tmp_path / f"a.{suffix}"), stored)
    got = read_image(tmp_path / f"a.{suffix}")
    assert got.dtype == np.uint16
    np.testing.assert_array_equal(got, image)


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P", "1", "CMYK"])
def test_other_modes(tmp_path, mode):
    source = Image.fromarray(colour()).convert(mode)
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    source.save(path)
    wanted = {"P": "RGB", "1": "L", "CMYK": "RGB"}.get(mode, mode)
    expected = np.asarray(source.convert(wanted))
    np.testing.assert_array_equal(read_image(path).squeeze(), expected)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(array, colour_type, *chunks):
    """A PNG by hand, for what the usual writers cannot make; array is big-endian or uint8."""
    height, width = array.shape[:2]
    rows = array.reshape(height, -1).view(np.uint8)
    header = struct.pack(">IIBBBBB", width, height, 8 * array.itemsize, colour_type, 0, 0, 0)
    body = zlib.compress(np.hstack([np.zeros((height, 1), np.uint8), rows]).tobytes())
    parts = [chunk(b"IHDR", header), *chunks, chunk(b"IDAT", body), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_orientation_is_applied(tmp_path, orientation, dtype):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = colour(dtype=dtype)
    data = png(image.astype(image.dtype.newbyteorder(">")), 2, chunk(b"eXIf", exif.tobytes()))
    (tmp_path / "a.png").write_bytes(data)
    planes = [Image.fromarray(image[..., c]) for c in range(3)]
    for plane in planes:
        plane.getexif()[0x0112] = orientation
    expected = np.stack([np.asarray(ImageOps.exif_transpose(p)) for p in planes], axis=-1)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), expected)


def test_a_bitmap_of_16_bits_a_pixel_is_not_one_of_16_bits_a_channel(tmp_path):
    pixels = np.array([[0x001F, 0xF800], [0xFFFF, 0x0000]], "<u2")  # stored from the bottom up
    masks = struct.pack("<III", 0xF800, 0x07E0, 0x001F)
    info = struct.pack("<IiiHHIIiiII", 40, 2, 2, 1, 16, 3, pixels.nbytes, 0, 0, 0, 0) + masks
    header = b"BM" + struct.pack("<IHHI", 14 + len(info) + pixels.nbytes, 0, 0, 14 + len(info))
    (tmp_path / "a.bmp").write_bytes(header + info + pixels.tobytes())
    red, blue, white, black = [255, 0, 0], [0, 0, 255], [255] * 3, [0] * 3
    assert read_image(tmp_path / "a.bmp").tolist() == [[white, black], [blue, red]]


def test_a_file_of_several_images_is_refused(tmp_path):
    page = Image.fromarray(colour())
    page.save(tmp_path / "pages.tif", save_all=True, append_images=[page, page])
    with pytest.raises(InputError, match=r"pages.tif: holds 3 images"):
        read_image(tmp_path / "pages.tif")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("none.png", None, "cannot be read"),
        ("empty.png", b"", "the file is empty"),
        ("text.png", b"not an image at all", "not an image of a known format"),
        ("cut.png", "png", "damaged or truncated"),
        ("cut.jpg", "jpeg", "damaged or truncated"),
        ("cut.tif", "tiff", "damaged or truncated"),
        ("cut.bmp", "bmp", "damaged or truncated"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, name, data, message):
    path = tmp_path / name
    if isinstance(data, str):
        buffer = io.BytesIO()
        Image.fromarray(colour(200, 200)).save(buffer, data)
        data = buffer.getvalue()[: len(buffer.getvalue()) // 2]
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(InputError, match=message) as error:
        read_image(path)
    assert name in str(error.value)


def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    Image.fromarray(np.zeros((300, 300), np.uint8)).save(tmp_path / "a.png")
    monkeypatch.setattr(images, "MAX_PIXELS", 89_999)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("it was decoded"))
    with pytest.raises(InputError, match="300x300 is more than"):
        read_image(tmp_path / "a.png")


def test_sizes_that_pillow_warns_of_or_refuses(tmp_path, monkeypatch, recwarn):
    Image.fromarray(np.zeros((300, 300), np.uint8)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60_000)
    assert read_image(tmp_path / "a.png").shape == (300, 300, 1)
    assert not recwarn
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    with pytest.raises(InputError, match="more than 100 megapixels"):
        read_image(tmp_path / "a.png")


def test_a_huge_file_is_not_read_into_memory(tmp_path, monkeypatch):
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(2 << 30)

    class Unread(FileIO):
        def read(self, *_):
            pytest.fail("it was read")

    monkeypatch.setattr("defectrt.files.open_file", Unread)
    with pytest.raises(InputError, match="larger than 1 GiB"):
        read_image(tmp_path / "a.png")


@pytest.fixture(scope="module")
def healthy():
    """Small files of every kind, and a place for damaged copies."""
    files = {}
    for kind in ("png", "tiff", "jpeg", "bmp"):
        buffer = io.BytesIO()
        Image.fromarray(colour()).save(buffer, kind)
        files[kind] = buffer.getvalue()
    deep = colour(dtype=np.uint16)
    tifffile.imwrite(tmp := io.BytesIO(), deep, photometric="rgb", compression="lzw")
    files["deep tiff"] = tmp.getvalue()
    tifffile.imwrite(
        tmp := io.BytesIO(), deep.transpose(2, 0, 1), photometric="rgb", planarconfig="separate"
    )
    files["planes"] = tmp.getvalue()
    files["deep"] = cv2.imencode(".png", colour(dtype=np.uint16))[1].tobytes()
    return files


@pytest.mark.slow
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_of_any_kind_is_one_clear_error(healthy, tmp_path, data):
    file = bytearray(healthy[data.draw(st.sampled_from(sorted(healthy)))])
    for _ in range(data.draw(st.integers(1, 4))):
        file[data.draw(st.integers(0, len(file) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "x.png").write_bytes(file[: data.draw(st.integers(0, len(file)))])
    with suppress(InputError):
        assert read_image(tmp_path / "x.png").ndim == 3


def test_an_error_of_any_kind_in_a_decoder_is_a_damaged_image(tmp_path, monkeypatch):
    Image.fromarray(colour()).save(tmp_path / "a.png")

    def stumble(self):
        raise TypeError("'IFDRational' object cannot be interpreted as an integer")

    monkeypatch.setattr(Image.Image, "load", stumble)  # seen with a TIFF of random damage
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", stumble)
    with pytest.raises(InputError, match=r"a.png: damaged or truncated \('IFDRational'"):
        read_image(tmp_path / "a.png")


def test_float_images_are_refused(tmp_path):
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(InputError, match=r"a.tif: stores 32-bit floating-point numbers; save"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png_round_trip(tmp_path, dtype, channels):
    image = colour(channels=channels, dtype=dtype)
    (tmp_path / "a.png").write_bytes(encode_png(image))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), image)


@settings(max_examples=200)
@given(
    h=st.integers(1, 90),
    w=st.integers(1, 90),
    data=st.data(),
    side=st.sampled_from([8, 32, 64]),
    context=st.integers(0, 10),
)
def test_a_window_holds_the_whole_mask_and_pastes_back(h, w, data, side, context):
    y, x = data.draw(st.integers(0, h - 1)), data.draw(st.integers(0, w - 1))
    mask = np.zeros((h, w), bool)
    mask[y : y + data.draw(st.integers(1, h)), x : x + data.draw(st.integers(1, w))] = True
    window = place_window(mask, side, context)
    assert window.side >= side
    crop = window.crop(mask)
    assert crop.shape == (window.side, window.side)
    back = np.zeros_like(mask)
    window.paste(back, crop)
    np.testing.assert_array_equal(back, mask)
    if h >= window.side and w >= window.side:
        assert crop.sum() == mask.sum()
        assert 0 <= window.y <= h - window.side
        assert 0 <= window.x <= w - window.side


def test_a_window_takes_the_models_size_when_the_mask_fits_and_grows_when_not():
    mask = np.zeros((200, 300), bool)
    mask[50:60, 100:120] = True
    assert place_window(mask, 64, 8) == Window(23, 78, 64)
    mask[50:150, 100:120] = True
    assert place_window(mask, 64, 8).side == 116


def test_beyond_the_border_the_image_is_mirrored():
    image = np.arange(9).reshape(3, 3)
    crop = Window(-1, -1, 5).crop(image)
    np.testing.assert_array_equal(crop[0], [0, 0, 1, 2, 2])
    np.testing.assert_array_equal(crop[1:4, 1:4], image)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_to_the_model_and_back(dtype, channels):
    image = colour(16, 16, channels, dtype)
    pixels = to_model(image, 16)
    assert pixels.shape == (3, 16, 16)
    assert pixels.dtype == np.float32
    assert pixels.min() >= -1
    assert pixels.max() <= 1
    colours = image[..., : channels - (channels in (2, 4))] / np.iinfo(dtype).max
    expected = np.broadcast_to(colours, (16, 16, 3))
    np.testing.assert_allclose(from_model(pixels, 16), expected, atol=1e-6)


def test_scaling_keeps_levels():
    image = np.full((100, 100, 1), 51, np.uint8)
    assert to_model(image, 32) == pytest.approx(-0.6, abs=1e-5)
    assert from_model(to_model(image, 32), 100) == pytest.approx(0.2, abs=1e-5)


def test_feather_is_one_near_the_mask_and_zero_beyond_the_band():
    mask = np.zeros((40, 40), bool)
    mask[18:22, 18:22] = True
    weight = feather(mask, 2, 4)
    y, x = np.mgrid[:40, :40]
    distance = np.hypot(
        np.maximum(0, np.abs(y - 19.5) - 1.5), np.maximum(0, np.abs(x - 19.5) - 1.5)
    )
    assert (weight[distance <= 2] == 1).all()
    assert (weight[distance >= 6] == 0).all()
    band = weight[(distance > 2.1) & (distance < 5.9)]
    assert band.min() > 0
    assert band.max() < 1
    assert np.abs(np.diff(weight, axis=0)).max() < 0.4
    # a quarter of the way out, smooth at both ends: r² (3 - 2 r) of r = ¾
    assert weight[18, 21 + 3] == np.float32(0.84375)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_composite_is_bit_identical_where_the_weight_is_zero(dtype, channels):
    source = colour(30, 30, channels, dtype)
    change = RNG.normal(0, 2, (30, 30, 3)).astype(np.float32)
    weight = np.zeros((30, 30), np.float32)
    weight[10:20, 10:20] = RNG.random((10, 10), np.float32)
    before = source.copy()
    result = composite(source, change, weight)
    np.testing.assert_array_equal(source, before)
    np.testing.assert_array_equal(result[weight == 0], source[weight == 0])
    assert (result[weight > 0.1] != source[weight > 0.1]).any()
    if channels in (2, 4):
        np.testing.assert_array_equal(result[..., -1], source[..., -1])


@pytest.mark.parametrize(("cast", "stays"), [(0, True), (2, True), (3, False)])
@pytest.mark.parametrize("channels", [3, 4])
def test_grey_in_three_channels_gets_no_colour(cast, stays, channels):
    """As from a monochrome camera; a JPEG leaves a level or two between its channels."""
    source = np.repeat(RNG.integers(60, 200, (30, 30, 1), np.uint8), channels, axis=2)
    source[3, 4, 2] += cast
    change = RNG.normal(0, 0.1, (30, 30, 3)).astype(np.float32)
    result = composite(source, change, np.ones((30, 30), np.float32)).astype(int)
    apart = np.abs(result[..., :3] - result[..., :1])
    apart[3, 4] = 0
    assert bool(apart.max() == 0) is stays
    assert (result != source).any()


def test_composite_adds_and_clips():
    source = np.full((2, 2, 3), 200, np.uint8)
    change = np.zeros((2, 2, 3), np.float32)
    change[0, 0], change[0, 1], change[1, 0] = -0.098, 1.0, -1.0
    result = composite(source, change, np.ones((2, 2), np.float32))
    assert result[..., 0].tolist() == [[175, 255], [0, 200]]  # 200 - 24.99
    half = composite(source, change, np.full((2, 2), 0.5, np.float32))
    assert half[0, 0, 0] == 188  # 200 - 12.495, rounded
