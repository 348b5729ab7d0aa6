"""Files that are read: regular ones, no more of them than makes sense, nothing that explodes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from time import monotonic

import numpy as np
import pytest
from PIL import Image
from support.program import command_line

from defectrt.config.yaml import read_yaml
from defectrt.errors import EngineError, InputError
from defectrt.files import open_file, parse_json, read_file, read_input, sha256_of
from defectrt.images.png import encode_png
from defectrt.images.reading import image_size, read_image
from defectrt.masks.examples import SHAPES_FILE, read_examples
from defectrt.masks.reading import read_any_mask, read_region
from defectrt.masks.regions import RegionFile
from defectrt.masks.registration import Golden
from defectrt.output.records import JOB, MANIFEST, read_finished
from defectrt.output.written import WRITTEN, write_folder


@pytest.fixture(params=["device", "pipe", "folder", "link to a device"])
def endless(request, tmp_path):
    """What is no file, and may never end."""
    path = tmp_path / "endless.png"
    if request.param == "device":
        return Path("/dev/zero")
    if request.param == "pipe":
        os.mkfifo(path)
    elif request.param == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    return path


READERS = {
    "open_file": open_file,
    "read_file": lambda path: read_file(path, 10),
    "read_input": lambda path: read_input(path, 10),
    "sha256_of": sha256_of,
    "read_yaml": read_yaml,
    "read_image": read_image,
    "image_size": image_size,
    "read_any_mask": read_any_mask,
    "read_region": lambda path: read_region(path, (8, 8)),
    "Golden": lambda path: Golden(path, None),
    "RegionFile": lambda path: RegionFile(path).record(),
}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_only_regular_files_are_read(reader, endless):
    with pytest.raises(InputError):
        reader(endless)


@pytest.mark.parametrize("option", ["golden", "legal", "config", "images", "within"])
def test_no_option_takes_a_device(option, tmp_path):
    good = tmp_path / "good"
    good.mkdir()
    (good / "a.png").write_bytes(encode_png(np.full((8, 8, 3), 9, np.uint8)))
    given = {"images": good, "out": tmp_path / "out"} | {option: "/dev/zero"}
    if option in ("golden", "legal"):
        given = {"golden": good / "a.png", "legal": good / "a.png"} | given
    words = [word for name, value in given.items() for word in (f"--{name}", value)]
    ended = command_line("synthesize", *words)
    assert ended.returncode == InputError.exit_code, ended.stderr
    assert not (tmp_path / "out").exists()


def test_a_file_larger_than_it_may_be_is_not_read(tmp_path):
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # a hole: takes no space
    with pytest.raises(InputError, match="larger than 1 KiB"):
        read_file(path, 1024)
    with pytest.raises(InputError, match="larger than 64 KiB"):
        read_yaml(path)


BOMBS = {
    "aliases": "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in ["ab", "bc"]),
    "one alias": "steps: &s 4\ncount: *s\n",
    "itself": "&a [*a]",
    "depth": "[" * 60_000,
    "keys": "{a: " * 15_000,
    "length": "a: " + "x" * (1 << 17),
    "one key often": "a: 1\n" * 1_000,
}


@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS)
def test_a_configuration_that_explodes_is_refused_at_once(text, tmp_path):
    path, start = tmp_path / "c.yaml", monotonic()
    path.write_text(text)
    with pytest.raises(InputError, match=r"c\.yaml"):
        read_yaml(path)
    assert monotonic() - start < 5


DEEP = "[" * 200_000


def test_json_that_is_nested_deeply_is_refused(tmp_path):
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json(DEEP)
    (tmp_path / JOB).write_text(DEEP)
    with pytest.raises(InputError, match=f"{JOB}: damaged"):
        read_finished(tmp_path)
    (tmp_path / JOB).write_text(json.dumps({"category": "a", "defect_types": []}))
    (tmp_path / MANIFEST).write_text(DEEP)
    with pytest.raises(InputError, match=f"{MANIFEST}: line 1 is damaged"):
        read_finished(tmp_path)
    (tmp_path / WRITTEN).write_text(DEEP)
    with pytest.raises(InputError, match=f"{WRITTEN}: damaged"):
        write_folder(tmp_path, {})
    (tmp_path / SHAPES_FILE).write_text(DEEP)
    with pytest.raises(EngineError, match=SHAPES_FILE):
        read_examples(tmp_path)


def declared(data, height, width):
    """A JPEG that says that it is larger than it is."""
    at = next(i for i in range(len(data)) if data[i] == 0xFF and data[i + 1] in (0xC0, 0xC2))
    size = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return data[: at + 5] + size + data[at + 9 :]


WAYS = [{}, {"progressive": True}, {"restart_marker_blocks": 4}, {"subsampling": 0}]


@pytest.mark.parametrize("options", WAYS, ids=str)
@pytest.mark.parametrize("size", [(1999, 1999), (160, 128), (128, 136)], ids=str)
@pytest.mark.parametrize("channels", [(), (3,)], ids=["grey", "colour"])
def test_a_jpeg_that_holds_less_than_it_declares_is_truncated(options, size, channels, tmp_path):
    path, rng = tmp_path / "a.jpg", np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (128, 128, *channels), np.uint8)).save(path, **options)
    assert read_image(path).shape[:2] == (128, 128)
    path.write_bytes(declared(path.read_bytes(), *size))
    with pytest.raises(InputError, match=r"damaged or truncated|ends before its last pixel"):
        read_image(path)


@pytest.mark.parametrize("options", WAYS, ids=str)
@pytest.mark.parametrize("level", [0, 127, 128, 129])
def test_a_jpeg_that_really_ends_in_grey_is_read(options, level, tmp_path):
    for shape in ((64, 64, 3), (57, 63)):
        Image.fromarray(np.full(shape, level, np.uint8)).save(tmp_path / "a.jpg", **options)
        assert (abs(read_image(tmp_path / "a.jpg").astype(int) - level) <= 1).all()
