"""A manifest is guilty until proven innocent."""

from __future__ import annotations

import hashlib
import json
import signal
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fake_engine import manifest_dict
from support.hostile import CASES, HOSTILE, hostile

from defectrt import errors
from defectrt.engines import loading
from defectrt.engines import manifest as module
from defectrt.engines.loading import load_engine
from defectrt.engines.manifest import Manifest, Target, dump, hash_file, read_manifest, verify
from defectrt.errors import EngineError, UsageError

DEEDS = {"replace", "manifest", "write", "remove", "link", "pipe", "folder"}


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


@pytest.fixture
def limits():
    """What never ends must not be read; where it is, neither memory nor time run out."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), hard))
    handler = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it waits for ever"))
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, handler)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def test_a_good_one_is_read(good):
    manifest = verify(good)
    assert manifest.defect_types == ["spot"]
    assert manifest.prompt_indices() == manifest.prompt_indices("spot") == (2, 0, 1)
    assert len(manifest.steps()) == 4
    assert len(manifest.steps(2)) == 2
    written = manifest_dict()["schedule"]["tables"]["2"]["generation"]
    assert [list(row) for row in manifest.steps(2).generation] == written


def test_the_engine_that_hostile_ones_are_made_of_is_good(tmp_path):
    assert verify(HOSTILE / "engine").defect_types == ["spot"]
    assert all(len(case.keys() & DEEDS) == 1 for case in CASES)
    hostile({}, tmp_path / "engine")
    verify(tmp_path / "engine")


@pytest.mark.usefixtures("limits")
@pytest.mark.parametrize("case", CASES, ids=lambda c: c["name"])
def test_hostile_engines(tmp_path, case, monkeypatch):
    monkeypatch.setattr(
        "defectrt.engines.onnx_engine.OnnxEngine.__init__",
        lambda *a, **k: pytest.fail("it was opened"),
    )
    hostile(case, tmp_path / "engine")
    with pytest.raises(errors.DefectRTError) as error:
        load_engine(tmp_path / "engine")
    assert type(error.value).__name__ == case["kind"]
    assert case["message"] in str(error.value)


@settings(max_examples=150)
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
    manifest = manifest_dict() | {"backend": "pickle", "precision": "int3", "extra": 1}
    with pytest.raises(EngineError) as error:
        read_manifest(write(tmp_path / "e", manifest))
    assert all(word in str(error.value) for word in ("backend", "precision", "extra"))


def test_all_damaged_files_are_named(tmp_path):
    damage = {"remove": ["decoder.onnx"], "write": {"encoder.onnx": "x", "more": "x"}}
    hostile(damage, tmp_path / "engine")
    with pytest.raises(EngineError) as error:
        verify(tmp_path / "engine")
    for fault in ("decoder.onnx is missing", "encoder.onnx has 1 bytes", "'more' is not in"):
        assert fault in str(error.value)


def test_what_file_managers_leave_behind_does_no_harm(good):
    for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
        (good / name).write_bytes(b"")
    verify(good)


def test_a_file_that_cannot_be_read_is_named(good, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(module, "sha256_of", refuse)
    with pytest.raises(EngineError, match=r"denoiser.onnx cannot be read \(Permission denied\)"):
        verify(good)


TARGET = Target(device="cuda", capabilities=["86", "89"], rows=[1, 8], runtime={"torch": "2.13.0"})


@pytest.mark.parametrize("target", [None, TARGET])
def test_what_is_written_is_read_again(good, tmp_path, target):
    manifest = read_manifest(good).model_copy(update={"target": target})
    dump(manifest, tmp_path)
    assert read_manifest(tmp_path).model_dump() == manifest.model_dump()
    assert ("target" in json.loads((tmp_path / "engine.json").read_text())) == bool(target)


def test_the_fingerprint_is_that_of_the_manifest_which_has_those_of_all_files(good):
    text = (good / "engine.json").read_bytes()
    assert verify(good).fingerprint == hashlib.sha256(text).hexdigest()


def test_an_engine_that_is_code_is_opened_only_if_it_is_named(good, monkeypatch):
    manifest = json.loads((good / "engine.json").read_text())
    (good / "engine.json").write_text(json.dumps(manifest | {"backend": "aoti"}))
    mine, other = verify(good).fingerprint, "0" * 64
    opened = []
    backend = SimpleNamespace(module="code", name="Code", extra="")
    code = SimpleNamespace(Code=lambda *a, **options: opened.append(a))
    monkeypatch.setitem(loading._BACKENDS, "aoti", backend)
    monkeypatch.setattr(loading, "import_module", lambda *a: code)
    for trust in (None, "", other, f"{other} {other}"):
        with pytest.raises(EngineError, match=f"machine code.*trust it with: --trust {mine}"):
            load_engine(good, trust=trust)
    for trust in ("yes", mine[:-1], f"{mine} no"):
        with pytest.raises(UsageError, match="no fingerprint of an engine"):
            load_engine(good, trust=trust)
    assert not opened
    for trust in (mine, f"{other}, {mine}", mine.upper()):
        load_engine(good, trust=trust)
    assert len(opened) == 3


def test_no_manifest_is_written_that_could_not_be_read(good, tmp_path):
    manifest = read_manifest(good)
    run = manifest.provenance.model_copy(update={"run": {"loss": float("nan")}})
    with pytest.raises(ValueError, match="not JSON compliant"):
        dump(Manifest.model_construct(**dict(manifest) | {"provenance": run}), tmp_path)


@pytest.mark.usefixtures("limits")
def test_of_a_manifest_of_gigabytes_only_the_start_is_read(tmp_path):
    with (write(tmp_path / "e", "") / "engine.json").open("wb") as file:
        file.truncate(8 << 30)
    with pytest.raises(EngineError, match="larger than 4 MiB; not a manifest"):
        read_manifest(tmp_path / "e")


def test_nothing_is_opened_before_everything_is_verified(good, monkeypatch):
    (good / "denoiser.onnx").write_bytes(b"grapH")
    monkeypatch.setattr(
        "defectrt.engines.onnx_engine.OnnxEngine.__init__",
        lambda *a, **k: pytest.fail("it was opened"),
    )
    with pytest.raises(EngineError, match="damaged"):
        load_engine(good)


def test_a_backend_of_another_build_is_named(tmp_path, monkeypatch):
    monkeypatch.delitem(loading._BACKENDS, "tensorrt")
    hostile({"replace": ['"backend": "onnx"', '"backend": "tensorrt"']}, tmp_path / "engine")
    with pytest.raises(EngineError, match="does not run the backend 'tensorrt'"):
        load_engine(tmp_path / "engine")


def test_the_defect_has_to_be_named_if_there_are_several(good):
    manifest = manifest_dict()
    manifest["prompts"].append({"role": "defect", "name": "line", "text": "line"})
    several = read_manifest(write(good, manifest))
    with pytest.raises(UsageError, match="no defect was named; this engine makes: spot, line"):
        several.prompt_indices()
    assert several.prompt_indices("line").defect == 3


def test_the_version_is_pinned():
    assert module.FORMAT_VERSION == 1
