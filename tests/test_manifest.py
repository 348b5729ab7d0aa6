"""A manifest is guilty until proven innocent."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import manifest_dict
from hypothesis import given, settings
from hypothesis import strategies as st

from defectrt import manifest as module
from defectrt.engine import load_engine
from defectrt.errors import EngineError, UsageError
from defectrt.manifest import hash_file, read_manifest, verify

HOSTILE = json.loads((Path(__file__).parent / "hostile_manifests.json").read_text())["cases"]


def write(directory, content):
    directory.mkdir(exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    (directory / "engine.json").write_text(text)
    return directory


@pytest.fixture
def good(tmp_path):
    directory = tmp_path / "engine"
    directory.mkdir()
    (directory / "denoiser.onnx").write_bytes(b"graph")
    files = {"denoiser.onnx": hash_file(directory / "denoiser.onnx").model_dump()}
    return write(directory, manifest_dict(files))


def edited(path, value):
    manifest = manifest_dict()
    node = manifest
    for key in path[:-1]:
        node = node[key]
    if value == "__delete__":
        del node[path[-1]]
    else:
        node[path[-1]] = value
    return manifest


def test_a_good_one_is_read(good):
    manifest = verify(good)
    assert manifest.defects == ["spot"]
    assert manifest.prompt_indices() == manifest.prompt_indices("spot") == (2, 0, 1)
    assert len(manifest.steps()) == 4
    assert len(manifest.steps(2)) == 2
    written = manifest_dict()["schedule"]["tables"]["2"]["generation"]
    assert [list(row) for row in manifest.steps(2).generation] == written


@pytest.mark.parametrize("case", HOSTILE, ids=lambda c: c["name"])
def test_hostile_manifests(tmp_path, case):
    directory = write(tmp_path / "e", edited(case["path"], case["value"]))
    with pytest.raises(EngineError) as error:
        read_manifest(directory)
    assert case["message"] in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"a": NaN}',
        "[" * 100_000,
        '{"format": "defectrt-engine"}',
        "\x80",
    ],
)
def test_text_that_is_no_manifest(tmp_path, text):
    with pytest.raises(EngineError, match="not a valid manifest"):
        read_manifest(write(tmp_path / "e", text))


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_random_damage_is_an_engine_error_or_harmless(tmp_path_factory, data):
    text = bytearray(json.dumps(manifest_dict()).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    directory = tmp_path_factory.mktemp("e")
    (directory / "engine.json").write_bytes(bytes(text))
    with suppress(EngineError):
        read_manifest(directory)


def test_all_faults_come_at_once(tmp_path):
    manifest = edited(["backend"], "pickle") | {"precision": "int3", "extra": 1}
    with pytest.raises(EngineError) as error:
        read_manifest(write(tmp_path / "e", manifest))
    assert all(word in str(error.value) for word in ("backend", "precision", "extra"))


def test_a_manifest_of_megabytes_is_not_read(tmp_path):
    with pytest.raises(EngineError, match="not a manifest"):
        read_manifest(write(tmp_path / "e", " " * (5 << 20)))


def test_damaged_files_are_all_named(good):
    (good / "denoiser.onnx").write_bytes(b"grapH")
    with pytest.raises(EngineError, match=r"denoiser.onnx does not have the hash"):
        verify(good)
    (good / "denoiser.onnx").write_bytes(b"graph and more")
    with pytest.raises(EngineError, match=r"denoiser.onnx has 14 bytes instead of 5"):
        verify(good)
    (good / "denoiser.onnx").unlink()
    with pytest.raises(EngineError, match=r"denoiser.onnx is missing"):
        verify(good)


def test_a_link_out_of_the_directory_is_refused(good, tmp_path):
    (tmp_path / "outside").write_bytes(b"graph")
    (good / "denoiser.onnx").unlink()
    (good / "denoiser.onnx").symlink_to(tmp_path / "outside")
    with pytest.raises(EngineError, match=r"denoiser.onnx is a link"):
        verify(good)


def test_nothing_is_opened_before_everything_is_verified(good, monkeypatch):
    (good / "denoiser.onnx").write_bytes(b"grapH")
    monkeypatch.setattr(
        "defectrt.onnx_engine.OnnxEngine.__init__", lambda *a, **k: pytest.fail("it was opened")
    )
    with pytest.raises(EngineError, match="damaged"):
        load_engine(good)


def test_a_backend_of_another_build_is_named(tmp_path):
    manifest = manifest_dict()
    directory = write(tmp_path / "e", manifest | {"backend": "tensorrt"})
    (directory / "denoiser.onnx").write_bytes(b"")
    entry = hash_file(directory / "denoiser.onnx").model_dump()
    write(directory, manifest | {"backend": "tensorrt", "files": {"denoiser.onnx": entry}})
    with pytest.raises(EngineError, match="does not run the backend 'tensorrt'"):
        load_engine(directory)


def test_the_defect_has_to_be_named_if_there_are_several(good):
    manifest = manifest_dict()
    manifest["prompts"].append({"role": "defect", "name": "line", "text": "line"})
    several = read_manifest(write(good, manifest))
    with pytest.raises(UsageError, match="no defect was named; this engine makes: spot, line"):
        several.prompt_indices()
    assert several.prompt_indices("line").defect == 3


def test_the_version_is_pinned():
    assert module.FORMAT_VERSION == 1
