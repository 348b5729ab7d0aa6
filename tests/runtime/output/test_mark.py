"""Made images say that they are made, and of what; with that alone they are made again."""

from __future__ import annotations

import json
import struct
from xml.etree.ElementTree import fromstring

import numpy as np
import pytest
from PIL import Image
from support.outputs import records
from support.program import command_line

from defectrt.errors import InputError, UsageError
from defectrt.images.png import encode_png
from defectrt.images.reading import read_image
from defectrt.output.mark import SOURCE_TYPE, Mark, marked, read_mark
from defectrt.synthesis.remake import remake

MARK = Mark(
    version="0.1.0",
    engine="ab" * 32,
    provider="cpu",
    source='a/<é> "b".png',
    source_sha256="cd" * 32,
    sample=3,
    defect="hole",
    options={"seed": 7, "strength": [0.3, 0.5]},
    needs=["masks"],
)
RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
IPTC = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
BITS = [
    np.arange(24, dtype=np.uint8).reshape(4, 6, 1),
    np.arange(72, dtype=np.uint8).reshape(4, 6, 3),
    np.arange(48, dtype=np.uint16).reshape(4, 6, 2) * 999,
]


@pytest.mark.parametrize("bits", BITS, ids=["grey", "colour", "deep with alpha"])
def test_a_mark_is_read_as_it_was_written_and_the_pixels_stay(tmp_path, bits):
    path = tmp_path / "a.png"
    path.write_bytes(marked(encode_png(bits), MARK))
    assert read_mark(path) == MARK
    assert np.array_equal(read_image(path), bits)


def test_other_programs_find_it(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(marked(encode_png(BITS[1]), MARK))
    with Image.open(path) as image:
        image.load()
        found = next(fromstring(image.info["xmp"]).iter(f"{{{RDF}}}Description"))
    assert found.get(f"{{{IPTC}}}DigitalSourceType") == SOURCE_TYPE
    assert found.get("{http://ns.adobe.com/xap/1.0/}CreatorTool") == "defectrt 0.1.0"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<x",
        '<!DOCTYPE a [<!ENTITY b "c">]><a/>',
        '<r:RDF xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><r:Description/></r:RDF>',
        '<r:RDF xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><r:Description '
        'xmlns:d="https://defectrt.org/ns/mark/1.0/" d:made="[1]"/></r:RDF>',
        '<r:RDF xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><r:Description '
        f'xmlns:d="https://defectrt.org/ns/mark/1.0/" d:made="{"[" * 100_000}"/></r:RDF>',
    ],
)
def test_a_damaged_one_is_an_input_error(tmp_path, text):
    png = encode_png(BITS[0])
    data = b"XML:com.adobe.xmp\0\0\0\0\0" + text.encode()
    chunk = struct.pack(">L", len(data)) + b"iTXt" + data + bytes(4)
    (tmp_path / "a.png").write_bytes(png[:33] + chunk + png[33:])
    with pytest.raises(InputError, match="cannot be read"):
        read_mark(tmp_path / "a.png")


def test_without_one_it_says_so(tmp_path):
    (tmp_path / "a.png").write_bytes(encode_png(BITS[0]))
    (tmp_path / "b.jpg").write_bytes(b"\xff\xd8")
    with pytest.raises(InputError, match="says nothing of how it was made"):
        read_mark(tmp_path / "a.png")
    with pytest.raises(InputError, match="not a PNG"):
        read_mark(tmp_path / "b.jpg")


def made_image(out):
    return out / records(out)[0]["image"]


def test_made_images_are_marked_and_the_rest_is_not(go, parts):
    out, _ = go(seed=5)
    record = records(out)[0]
    mark = read_mark(out / record["image"])
    assert (mark.source, mark.sample, mark.defect) == (
        record["source"],
        record["sample"],
        record["defect"],
    )
    assert mark.source_sha256 == record["source_sha256"]
    assert mark.options == {"seed": 5}
    assert mark.needs == ["masks"]
    for key in ("label", "mask", "good"):
        with pytest.raises(InputError):
            read_mark(out / record[key])
    assert str(parts[0]) not in json.dumps(mark.model_dump())


def test_no_mark_leaves_the_same_pixels(go):
    with_, _ = go("with")
    without, _ = go("without", mark=False)
    image = made_image(without)
    with pytest.raises(InputError):
        read_mark(image)
    assert np.array_equal(read_image(image), read_image(made_image(with_)))


def test_it_is_made_again_bit_for_bit(go, parts, fake_engine):
    out, _ = go(seed=5, count=2, strength=(0.4, 0.6))
    for record in records(out):
        path = out / record["image"]
        made = remake(path, parts[0], engine=fake_engine[0], masks=parts[1])
        assert made.differing == made.largest == 0
        assert made.png == path.read_bytes()


def test_drawn_masks_need_nothing_but_the_engine(go, parts, fake_engine):
    out, _ = go(masks=None, seed=2)
    made = remake(made_image(out), parts[0], engine=fake_engine[0])
    assert made.differing == 0


def test_what_differs_is_said(go, parts, fake_engine, tmp_path):
    out, _ = go()
    path = made_image(out)
    with pytest.raises(UsageError, match="made with --masks"):
        remake(path, parts[0], engine=fake_engine[0])
    with pytest.raises(InputError, match="not the engine of"):
        remake(path, parts[0], masks=parts[1])
    with pytest.raises(InputError, match="not there"):
        remake(path, tmp_path, engine=fake_engine[0], masks=parts[1])
    bits = read_image(path).copy()
    bits[0, 0] ^= 4
    path.write_bytes(marked(encode_png(bits), read_mark(path)))
    made = remake(path, parts[0], engine=fake_engine[0], masks=parts[1])
    assert (made.differing, made.largest) == (1, 4)
    source = parts[0] / read_mark(path).source
    source.write_bytes(encode_png(255 - read_image(source)))
    with pytest.raises(InputError, match="was changed since"):
        remake(path, parts[0], engine=fake_engine[0], masks=parts[1])


def test_the_commands_say_the_same(go, parts, fake_engine):
    out, _ = go(seed=5)
    path = made_image(out)
    shown = command_line("inspect", path, "--json")
    assert json.loads(shown.stdout) == read_mark(path).model_dump()
    assert "source" in command_line("inspect", path).stdout
    words = ["remake", path, "--images", parts[0], "--engine", fake_engine[0]]
    again = command_line(*words, "--masks", parts[1], "--out", out / "again.png")
    assert again.returncode == 0, again.stderr
    assert "the same, bit for bit" in again.stdout
    assert (out / "again.png").read_bytes() == path.read_bytes()
    path.write_bytes(encode_png(read_image(path)))
    assert command_line("inspect", path).returncode == 3


@pytest.mark.parametrize(
    "change",
    [
        {"options": {"trust": "ab"}},
        {"options": {"masks": "/etc"}},
        {"options": {"threads": 1}},
        {"source": "../secret.png"},
    ],
    ids=lambda change: str(change),
)
def test_a_picture_decides_nothing_but_the_sample(go, parts, fake_engine, change):
    """Neither what code is trusted nor what is read."""
    out, _ = go()
    path = made_image(out)
    mark = read_mark(path).model_copy(update=change)
    path.write_bytes(marked(encode_png(read_image(path)), mark))
    with pytest.raises(InputError, match="cannot be used"):
        remake(path, parts[0], engine=fake_engine[0], masks=parts[1])


def test_an_entity_in_another_encoding_is_refused(tmp_path):
    text = '<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'.encode("utf-16")
    data = b"XML:com.adobe.xmp\0\0\0\0\0" + text
    png = encode_png(BITS[0])
    chunk = struct.pack(">L", len(data)) + b"iTXt" + data + bytes(4)
    (tmp_path / "a.png").write_bytes(png[:33] + chunk + png[33:])
    with pytest.raises(InputError, match="cannot be read"):
        read_mark(tmp_path / "a.png")
