"""Images of every kind, as other programs write them, through the composite and back."""

from __future__ import annotations

import io
import struct
import sys
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from defectrt.errors import InputError, MissingExtraError
from defectrt.images import tiff as tiff_module
from defectrt.images.compositing import composite, feather
from defectrt.images.png import encode_png
from defectrt.images.reading import image_size, read_image
from defectrt.images.tiff import TiffInfo
from defectrt.images.window import from_model, place_window, to_model

SIZE = 30, 23
#: Colour model -> (channels stored, channels read).
MODELS = {"grey": (1, 1), "grey+alpha": (2, 2), "rgb": (3, 3), "rgb+alpha": (4, 4), "cmyk": (4, 3)}
PILLOW = {"grey": "L", "grey+alpha": "LA", "rgb": "RGB", "rgb+alpha": "RGBA", "cmyk": "CMYK"}


def samples(channels, dtype=np.uint8, size=SIZE):
    rng = np.random.default_rng([channels, np.dtype(dtype).itemsize])
    return rng.integers(0, np.iinfo(dtype).max, (*size, channels), dtype, endpoint=True)


def light(ink):
    """CMYK to RGB by the definition: light is what neither the ink nor the black takes."""
    top = np.iinfo(ink.dtype).max
    part = 1 - ink.astype(np.float64) / top
    return np.rint(part[..., :3] * part[..., 3:] * top).astype(ink.dtype)


def turned(array, orientation):
    """What EXIF orientation 1 to 8 shows, by Pillow, plane by plane."""
    planes = []
    for c in range(array.shape[2]):
        plane = Image.fromarray(np.ascontiguousarray(array[..., c]))
        plane.getexif()[0x0112] = orientation
        planes.append(np.asarray(ImageOps.exif_transpose(plane)))
    return np.stack(planes, axis=-1)


def tiff(array, model, orientation=1, **how):
    """By tifffile; channels apart if ``planarconfig`` says so."""
    photometric = {"grey": "minisblack", "rgb": "rgb", "cmyk": "separated"}
    how = {"photometric": photometric[model.split("+")[0]], "metadata": None} | how
    if "alpha" in model:
        how.setdefault("extrasamples", ["unassalpha"])
    if array.shape[2] == 1:
        array = array[..., 0]
    elif how.get("planarconfig") == "separate":
        array = array.transpose(2, 0, 1)
    else:
        how["planarconfig"] = "contig"
    how["extratags"] = [(274, 3, 1, orientation, True)]
    tifffile.imwrite(file := io.BytesIO(), array, **how)
    return file.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(array, model, orientation=1, *chunks):
    """By hand, since no library writes all of them."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    kind = {"grey": 0, "grey+alpha": 4, "rgb": 2, "rgb+alpha": 6}[model]
    height, width = array.shape[:2]
    rows = array.astype(array.dtype.newbyteorder(">")).reshape(height, -1).view(np.uint8)
    header = struct.pack(">IIBBBBB", width, height, 8 * array.itemsize, kind, 0, 0, 0)
    body = zlib.compress(np.hstack([np.zeros((height, 1), np.uint8), rows]).tobytes())
    parts = [chunk(b"IHDR", header), chunk(b"eXIf", exif.tobytes()), *chunks, chunk(b"IDAT", body)]
    return b"\x89PNG\r\n\x1a\n" + b"".join([*parts, chunk(b"IEND", b"")])


def by_pillow(kind):
    """A writer of a kind of file, 8 bits."""

    def write(array, model, orientation=1, **how):
        exif = Image.Exif()
        exif[0x0112] = orientation
        image = Image.fromarray(array.squeeze(), PILLOW[model])
        image.save(file := io.BytesIO(), kind, exif=exif, **how)
        return file.getvalue()

    return write


def bmp(array, model, orientation=1):
    """By OpenCV, whose alpha is declared as such."""
    order = {"rgb": cv2.COLOR_RGB2BGR, "rgb+alpha": cv2.COLOR_RGBA2BGRA}
    stored = array if model == "grey" else cv2.cvtColor(array, order[model])
    return cv2.imencode(".bmp", stored)[1].tobytes()


TABLE = [
    *[("png", png, m, d) for m in MODELS if m != "cmyk" for d in (np.uint8, np.uint16)],
    *[("tif", tiff, m, d) for m in MODELS for d in (np.uint8, np.uint16)],
    *[("jpg", by_pillow("jpeg"), m, np.uint8) for m in ("grey", "rgb", "cmyk")],
    *[("bmp", bmp, m, np.uint8) for m in ("grey", "rgb", "rgb+alpha")],
]
#: BMP has no orientation.
CASES = [(*kind, o) for kind in TABLE for o in range(1, 9 if kind[0] != "bmp" else 2)]


def through_the_composite(path, tmp_path):
    """Put a change into a window of an image, write it and read it back; both and the weight."""
    source = read_image(path)
    mask = np.zeros(source.shape[:2], bool)
    mask[9:13, 8:14] = True
    window = place_window(mask, 16, 2)
    seen = window.crop(source)
    pixels = to_model(seen, 16)
    change = from_model(np.where(pixels > 0, -1, 1).astype(np.float32), window.side)
    change -= from_model(pixels, window.side)
    weight = feather(window.crop(mask), 1, 2)
    result, band = source.copy(), np.zeros(mask.shape, np.float32)
    window.paste(result, composite(seen, change, weight))
    window.paste(band, weight)
    (tmp_path / "result.png").write_bytes(encode_png(result))
    return source, read_image(tmp_path / "result.png"), band


@pytest.mark.parametrize(
    ("suffix", "write", "model", "dtype", "orientation"),
    CASES,
    ids=[f"{s}-{m}-{np.dtype(d).itemsize * 8}-{o}" for s, _, m, d, o in CASES],
)
def test_every_kind_keeps_its_pixels_size_depth_and_orientation(
    tmp_path, suffix, write, model, dtype, orientation
):
    stored = samples(MODELS[model][0], dtype)
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(write(stored, model, orientation))
    expected = light(stored) if model == "cmyk" else stored
    if suffix == "jpg":  # what it stores is only known after it is decoded
        image = Image.open(path).convert("L" if model == "grey" else "RGB")
        expected = np.asarray(image).reshape(*SIZE, -1)
    expected = turned(expected, orientation)
    source, result, band = through_the_composite(path, tmp_path)
    assert source.dtype == result.dtype == dtype
    np.testing.assert_array_equal(source, expected)
    assert result.shape == source.shape
    np.testing.assert_array_equal(result[band == 0], source[band == 0])
    colours = slice(-1 if "alpha" in model else None)
    assert (result[band == 1][:, colours] != source[band == 1][:, colours]).all(axis=1).mean() > 0.9
    if "alpha" in model:
        np.testing.assert_array_equal(result[..., -1], source[..., -1])


def test_only_exif_turns_an_image(tmp_path):
    """As in browsers and OpenCV; Pillow would also follow what XMP says."""
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><a tiff:Orientation="6"/></rdf:RDF>'
    stored = samples(1, np.uint8)
    Image.fromarray(stored.squeeze()).save(tmp_path / "a.jpg", xmp=xmp)
    assert Image.open(tmp_path / "a.jpg").getexif()[0x0112] == 6
    assert read_image(tmp_path / "a.jpg").shape == stored.shape
    assert image_size(tmp_path / "a.jpg") == stored.shape[:2]


@pytest.mark.slow
@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "packbits", "zstd", "lzma"])
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("apart", [False, True], ids=["together", "apart"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("extra", [True, False], ids=["extra", "no extra"])
def test_tiff_in_every_compression_and_order(
    tmp_path, request, compression, model, apart, dtype, extra
):
    """Without the extra, to the same values or not at all."""
    if not extra:
        request.getfixturevalue("no_extra")
    stored = samples(MODELS[model][0], dtype)
    expected = light(stored) if model == "cmyk" else stored
    ways = [{}, {"rowsperstrip": 7}, {"tile": (16, 16)}, {"byteorder": ">"}, {"bigtiff": True}]
    if compression in ("lzw", "zlib"):
        ways += [{"predictor": True}, {"predictor": True, "tile": (16, 32), "byteorder": ">"}]
    for way in ways:
        how = {"compression": compression} | way | ({"planarconfig": "separate"} if apart else {})
        (tmp_path / "a.tif").write_bytes(tiff(stored, model, **how))
        together = not apart or model == "grey"
        plain = model in ("grey", "rgb", "rgb+alpha") and compression not in ("zstd", "lzma")
        pillows = dtype == np.uint8 and (together or model != "grey+alpha")
        if extra or pillows or (dtype == np.uint16 and together and plain):
            np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), expected, str(way))
            continue
        with pytest.raises(MissingExtraError, match=r"a.tif: .*pip install 'defectrt\[tiff\]'"):
            read_image(tmp_path / "a.tif")


@pytest.fixture
def no_extra(monkeypatch):
    """As if the packages of [tiff] were not installed."""
    monkeypatch.setitem(sys.modules, "imagecodecs", None)


@pytest.mark.slow
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("model", ["grey", "rgb", "rgb+alpha"])
def test_what_opencv_reads_is_what_tifffile_reads(tmp_path, monkeypatch, model, orientation):
    path = tmp_path / "a.tif"
    for alpha in ("unassalpha", "assocalpha", "unspecified"):
        how = {"extrasamples": [alpha]} if "alpha" in model else {}
        stored = samples(MODELS[model][0], np.uint16, (301, 517))
        path.write_bytes(tiff(stored, model, orientation, compression="lzw", **how))
        by_opencv = read_image(path)
        with monkeypatch.context() as patch:
            patch.setattr(TiffInfo, "is_plain", False)
            patch.setattr("cv2.imdecode", lambda *_: pytest.fail("it was OpenCV"))
            np.testing.assert_array_equal(read_image(path), by_opencv)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiff_in_which_white_is_zero(tmp_path, dtype):
    stored = samples(1, dtype)
    (tmp_path / "a.tif").write_bytes(tiff(stored, "grey", photometric="miniswhite"))
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), np.iinfo(dtype).max - stored)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i1", "i2", "i4", "u4", "u8"])
@pytest.mark.parametrize("channels", [1, 3])
def test_other_numbers_are_refused_in_one_sentence(tmp_path, dtype, channels):
    array = np.zeros((*SIZE, channels), dtype)
    (tmp_path / "a.tif").write_bytes(tiff(array, "grey" if channels == 1 else "rgb"))
    kind = {"f": " floating-point", "i": " signed", "u": ""}[dtype[0]]
    bits = 8 * int(dtype[1])
    message = f"a.tif: stores {bits}-bit{kind} numbers; save it with 8 or 16 bits"
    with pytest.raises(InputError, match=message):
        read_image(tmp_path / "a.tif")


def changed(data, **values):
    """The same classic little-endian TIFF with other numbers in tags, by their names."""
    changed = bytearray(data)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        for name, value in values.items():
            tag = file.pages.first.tags[name]
            struct.pack_into("<HLL", changed, tag.offset + 2, 4, 1, value)
    return bytes(changed)


def grown(data, extra):
    """The same classic little-endian TIFF with one more entry, behind that of the same tag."""
    (start,) = struct.unpack_from("<L", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    entries = [data[start + 2 + 12 * i :][:12] for i in range(count)]
    entries = sorted([*entries, extra], key=lambda e: struct.unpack_from("<H", e))
    directory = struct.pack("<H", count + 1) + b"".join(entries) + bytes(4)
    return data[:4] + struct.pack("<L", len(data)) + data[8:] + directory


@pytest.mark.parametrize("apart", [False, True], ids=["OpenCV", "tifffile"])
def test_a_hostile_tiff_is_refused_before_memory_is_taken(tmp_path, monkeypatch, apart):
    monkeypatch.setattr(
        "defectrt.images.reading.read_samples", lambda *_: pytest.fail("it was unpacked")
    )
    how = {"planarconfig": "separate"} if apart else {}
    data = tiff(samples(3, np.uint16), "rgb", compression="zlib", tile=(16, 16), **how)
    wide = struct.pack("<HHLL", 256, 4, 1, 1 << 20)
    long = struct.pack("<HHLL", 270, 2, 1 << 30, 8)
    for hostile, message in [
        (changed(data, TileWidth=1 << 24), "16777216x16 is more than"),
        (changed(data, ImageLength=1 << 24), "23x16777216 is more than"),
        (grown(data, wide), "its directory contradicts itself"),
        (grown(data, long), "its directory contradicts itself"),
    ]:
        (tmp_path / "a.tif").write_bytes(hostile)
        with pytest.raises(InputError, match=f"a.tif: .*{message}"):
            read_image(tmp_path / "a.tif")
    monkeypatch.setattr(tiff_module, "_MOST_NUMBERS", 3)
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(InputError, match="cut into too many pieces"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "packbits"])
@pytest.mark.parametrize("apart", [False, True], ids=["OpenCV", "tifffile"])
def test_a_tiff_cut_anywhere_is_damaged(tmp_path, compression, apart):
    how = {"planarconfig": "separate"} if apart else {}
    for way in ({"rowsperstrip": 7}, {"tile": (16, 16)}):
        data = tiff(samples(3, np.uint16), "rgb", compression=compression, **way, **how)
        for end in range(8, len(data), 97):
            (tmp_path / "a.tif").write_bytes(data[:end])
            with pytest.raises(InputError, match="damaged or truncated"):
                read_image(tmp_path / "a.tif")


def test_a_tiff_that_lacks_a_strip_is_damaged(tmp_path):
    data = tiff(samples(3, np.uint16), "rgb", planarconfig="separate", rowsperstrip=64)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        at = file.pages.first.tags["StripByteCounts"].valueoffset
    (tmp_path / "a.tif").write_bytes(data[:at] + bytes(2) + data[at + 2 :])
    with pytest.raises(InputError, match="a strip or tile is missing"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("change", [{"Compression": 34712}, {"Predictor": 3}])
def test_a_compression_that_may_unpack_to_anything_is_refused(tmp_path, change):
    data = tiff(samples(3, np.uint16), "rgb", compression="zlib", predictor=True)
    (tmp_path / "a.tif").write_bytes(changed(data, **change))
    with pytest.raises(InputError, match=r"compression \d+ with predictor \d is not supported"):
        read_image(tmp_path / "a.tif")


def test_channels_of_other_meanings_and_other_sizes_are_refused(tmp_path):
    array = samples(3, np.uint16)
    (tmp_path / "a.tif").write_bytes(tiff(array, "rgb", photometric="cielab"))
    with pytest.raises(InputError, match="3 channels of colour model 8 are not supported"):
        read_image(tmp_path / "a.tif")
    deep = tiff(array, "rgb")
    two = io.BytesIO(deep)
    tifffile.imwrite(two, array, photometric="rgb", append=True)
    (tmp_path / "b.tif").write_bytes(two.getvalue())
    with pytest.raises(InputError, match="holds several images"):
        read_image(tmp_path / "b.tif")


def test_a_deep_tiff_that_would_be_a_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((300, 300, 3), np.uint16), photometric="rgb")
    monkeypatch.setattr("defectrt.images.reading.MAX_PIXELS", 89_999)
    monkeypatch.setattr(
        "defectrt.images.reading.read_samples", lambda *_: pytest.fail("it was unpacked")
    )
    with pytest.raises(InputError, match="300x300 is more than"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("clear", [None, 1])
def test_palettes(tmp_path, bits, clear):
    indices = samples(1)[..., 0] & (2**bits - 1)
    image = Image.fromarray(indices).convert("P")
    palette = np.random.default_rng(0).integers(0, 256, (256, 3), np.uint8)
    image.putpalette(palette.tobytes())
    how = {} if clear is None else {"transparency": clear}
    image.save(tmp_path / "a.png", bits=bits, **how)
    expected = palette[indices]
    if clear is not None:
        alpha = np.where(indices == clear, 0, 255).astype(np.uint8)
        expected = np.dstack([expected, alpha])
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), expected)


@pytest.mark.parametrize(
    ("suffix", "how"), [("png", {}), ("bmp", {}), ("tif", {}), ("tif", {"compression": "group4"})]
)
def test_one_bit_is_black_and_white(tmp_path, suffix, how):
    bits = samples(1)[..., 0] > 100
    Image.fromarray(bits).save(tmp_path / f"a.{suffix}", **how)
    np.testing.assert_array_equal(
        read_image(tmp_path / f"a.{suffix}"), bits[..., None] * np.uint8(255)
    )


@pytest.mark.parametrize("model", ["grey", "rgb"])
def test_a_transparent_value_of_16_bits_becomes_alpha(tmp_path, model):
    stored = samples(MODELS[model][0], np.uint16)
    stored[3, 4] = 77
    value = struct.pack(">H", 77) * stored.shape[2]
    (tmp_path / "a.png").write_bytes(png(stored, model, 1, chunk(b"tRNS", value)))
    clear = (stored == 77).all(axis=2)
    expected = np.dstack([stored, np.where(clear, 0, 65535).astype(np.uint16)])
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), expected)


def ink_profile(white=255, black=0):
    """A minimal ICC profile for CMYK: lightness is what the black leaves, colour is none."""
    table = struct.pack(">4sIBBBB", b"mft1", 0, 4, 3, 2, 0)
    table += struct.pack(">9i", *(65536 * (i % 4 == 0) for i in range(9)))
    ramp = bytes(range(256))
    corners = b"".join(bytes([black if n % 2 else white, 128, 128]) for n in range(16))
    table += ramp * 4 + corners + ramp * 3
    header = struct.pack(">I4sI4s4s4s", 0, b"none", 0x02400000, b"prtr", b"CMYK", b"Lab ")
    header += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp") + bytes(28)
    header += struct.pack(">3i", 63190, 65536, 54061) + bytes(48)
    tags = struct.pack(">I4sII", 1, b"A2B0", 144, len(table))
    data = header[:128] + tags + table
    return struct.pack(">I", len(data)) + data[4:]


@pytest.mark.parametrize(("kind", "suffix"), [("tiff", "tif"), ("jpeg", "jpg")])
def test_ink_is_seen_through_its_colour_profile(tmp_path, kind, suffix):
    stored = np.zeros((*SIZE, 4), np.uint8)
    stored[:, :10, 0] = 255  # cyan, which this profile says is white
    stored[:, 15:, 3] = 255
    path = tmp_path / f"a.{suffix}"
    how = {"icc_profile": ink_profile()} | ({"quality": 100} if kind == "jpeg" else {})
    path.write_bytes(by_pillow(kind)(stored, "cmyk", **how))
    image = read_image(path)
    assert image.shape == (*SIZE, 3)
    assert image[:, :8].min() > 245
    assert image[:, 17:].max() < 10
    path.write_bytes(by_pillow(kind)(stored, "cmyk"))
    assert read_image(path)[:, :8, 0].max() < 10


def test_a_profile_that_is_none_is_said(tmp_path):
    data = by_pillow("tiff")(samples(4), "cmyk", icc_profile=b"not a profile" * 20)
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(InputError, match=r"a.tif: its colour profile cannot be used"):
        read_image(tmp_path / "a.tif")
