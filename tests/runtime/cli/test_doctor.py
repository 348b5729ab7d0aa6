"""doctor, info and verify: what is here, what an engine is, whether it is whole."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from email.message import Message
from importlib import metadata
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from support.program import command_line

from defectrt import doctor
from defectrt.engines.loading import BUNDLED_ENGINE

pytestmark = pytest.mark.slow


def texts(findings, topic):
    return [(f.level, f.text, f.advice) for f in findings if f.topic == topic]


@pytest.mark.slow
def test_doctor_finds_this_installation_sound():
    found = list(doctor.examine())
    assert [f for f in found if f.level == "fault"] == []
    assert [f.topic for f in found if f.topic in ("engine", "self-test")] == ["engine", "self-test"]
    packages = {text.split()[0]: text.split()[1] for _, text, _ in texts(found, "package")}
    assert packages["numpy"] == np.__version__
    assert {"onnxruntime", "pillow", "pydantic", "typer", "rich"} < set(packages)
    (provider,) = [t for t in texts(found, "provider") if t[1].startswith("CPUExecution")]
    assert "CPUExecutionProvider works" in provider[1]
    assert any("export: " in text and "onnx " in text for _, text, _ in texts(found, "extra"))


def test_the_tiny_graph_is_one():
    model = onnx.load_from_string(doctor._TINY)
    onnx.checker.check_model(model, full_check=True)
    (node,) = model.graph.node
    assert (node.op_type, list(node.input), list(node.output)) == ("Add", ["x", "x"], ["y"])


def test_a_missing_extra_is_noted_with_the_line_to_run(monkeypatch):
    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda n: None if n == "onnxscript" else real(n))
    (found,) = [f for f in doctor._extras() if f.text.startswith("export")]
    assert found.level == "note"
    assert found.text == "export: not installed (onnxscript missing)"
    assert found.advice == "pip install 'defectrt[export]'"


def test_a_missing_package_is_a_fault(monkeypatch):
    monkeypatch.setattr(doctor, "_version", lambda n: None if n == "rich" else "1")
    (found,) = [f for f in doctor._packages() if f.level != "ok"]
    assert (found.level, found.text, found.advice) == (
        "fault",
        "rich is missing",
        "pip install rich",
    )


def test_extras_within_extras_are_followed(monkeypatch):
    lines = [
        "numpy>=1",
        'torch>=2; extra == "train"',
        'defectrt[train]; extra == "export"',
        'onnx; extra == "export"',
        "triton>=3; sys_platform == 'linux' and extra == 'gpu'",
        "elsewhere; sys_platform == 'never' and extra == 'gpu'",
        "nowhere; sys_platform == 'never'",
    ]
    about = Message()
    for extra in ("train", "export", "gpu"):
        about["Provides-Extra"] = extra
    monkeypatch.setattr(metadata, "requires", lambda name: lines)
    monkeypatch.setattr(metadata, "metadata", lambda name: about)
    assert doctor._requirements() == {
        "": ["numpy"],
        "train": ["torch"],
        "export": ["torch", "onnx"],
        "gpu": ["triton"],
    }


def test_two_builds_of_onnx_runtime_clash(monkeypatch):
    owners = {"onnxruntime": ["onnxruntime", "onnxruntime-gpu", "onnxruntime"]}
    monkeypatch.setattr(metadata, "packages_distributions", lambda: owners)
    (found,) = doctor._runtime()
    assert found.level == "fault"
    assert "onnxruntime and onnxruntime-gpu are both installed" in found.text
    assert found.advice == (
        "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu"
    )
    owners["onnxruntime"] = ["onnxruntime-gpu"]
    assert list(doctor._runtime()) == []
    monkeypatch.setattr(doctor, "_version", lambda n: None if n == "onnxruntime" else "1")
    assert all(f.level == "ok" for f in doctor._packages())


@pytest.mark.parametrize(
    ("got", "answer", "message"),
    [
        ("CUDAExecutionProvider", [2, 5], "is [2, 5]"),
        ("CPUExecutionProvider", [2, 4], "fell back"),
        (
            RuntimeError("libcudart.so.13: cannot open\nmore"),
            [2, 4],
            "libcudart.so.13: cannot open",
        ),
    ],
    ids=["wrong", "fallback", "broken"],
)
def test_a_provider_that_is_listed_need_not_work(monkeypatch, got, answer, message):
    import onnxruntime as ort

    def session(model, sess_options, providers):
        if isinstance(got, Exception):
            raise got
        return SimpleNamespace(
            get_providers=lambda: [got], run=lambda names, feeds: [np.array(answer)]
        )

    monkeypatch.setattr(ort, "InferenceSession", session)
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    (found,) = doctor._providers()
    assert found.level == "note"
    assert found.text.startswith("CUDAExecutionProvider is there and does not work")
    assert message in found.text
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    if got != "CPUExecutionProvider":
        (found,) = doctor._providers()
        assert found.level == "fault"


def test_a_gpu_that_this_onnx_runtime_cannot_use_is_noted(monkeypatch):
    import onnxruntime as ort

    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(doctor.Path, "exists", lambda path: True)
    note, cpu = doctor._providers()
    assert (note.level, cpu.level) == ("note", "ok")
    assert note.advice == "pip uninstall -y onnxruntime && pip install onnxruntime-gpu"
    monkeypatch.setattr(doctor.Path, "exists", lambda path: False)
    assert [found.level for found in doctor._providers()] == ["ok"]


@pytest.fixture
def damaged(tmp_path):
    """The bundled engine with one bit less in one file, and a file that nobody listed."""
    engine = tmp_path / "engine"
    shutil.copytree(BUNDLED_ENGINE, engine)
    data = bytearray((engine / "decoder.onnx").read_bytes())
    data[1000] ^= 1
    (engine / "decoder.onnx").write_bytes(data)
    (engine / "more.bin").write_bytes(b"")
    return engine


def test_doctor_survives_a_package_that_is_missing():
    code = "import sys; sys.modules['numpy'] = None\nfrom defectrt.cli import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", code, "doctor"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert "FAULT  engine       cannot be tested: import of numpy halted" in result.stdout
    assert "unexpected" not in result.stderr


def test_doctor_names_a_damaged_engine_and_exits_1(damaged):
    result = command_line("doctor", "--engine", damaged)
    assert "FAULT  engine" in result.stdout
    assert "decoder.onnx does not have the hash" in result.stdout
    assert result.returncode == 1


def test_doctor_speaks_json(monkeypatch):
    monkeypatch.setattr(doctor, "_engine", lambda *_: [])
    result = command_line("doctor", "--json")
    assert result.returncode == 0
    found = json.loads(result.stdout)
    assert {f["level"] for f in found} <= {"ok", "note"}
    assert found[0]["topic"] == "system"


def test_verify_says_all_faults_and_exits_4(damaged):
    result = command_line("verify", damaged)
    assert result.returncode == 4
    for fault in ("decoder.onnx does not have the hash", "'more.bin' is not in the manifest"):
        assert fault in result.stderr
    verdict = json.loads(command_line("verify", damaged, "--json").stdout)
    assert verdict["intact"] is False
    assert "decoder.onnx" in verdict["fault"]


def test_verify_passes_the_bundled_engine():
    result = command_line("verify")
    assert result.returncode == 0
    files = len(list(BUNDLED_ENGINE.iterdir())) - 1
    assert result.stdout.startswith(f"{BUNDLED_ENGINE}: intact, {files} files, ")
    verdict = json.loads(command_line("verify", "--json").stdout)
    assert verdict["intact"] is True
    size = sum(f.stat().st_size for f in BUNDLED_ENGINE.iterdir() if f.name != "engine.json")
    assert verdict["bytes"] == size


def test_info_shows_what_an_engine_is():
    manifest = json.loads((BUNDLED_ENGINE / "engine.json").read_text())
    result = command_line("info")
    assert result.returncode == 0
    window = "{width}x{height} px".format(**manifest["image"])
    for text in ("onnx, float32", window, "1  ", "by default", " 9,800 images", "decoder.onnx, "):
        assert text in result.stdout
    data = json.loads(command_line("info", "--json").stdout)
    assert data["files"] == manifest["files"]
    kinds = [p["name"] for p in manifest["prompts"] if p["role"] == "defect"]
    assert data["category_ids"] == {kind: i for i, kind in enumerate(kinds, 1)}
    for kind in kinds:
        assert f"{data['category_ids'][kind]}  {kind}: " in result.stdout


def test_info_prints_nothing_that_a_terminal_obeys(tmp_path):
    shutil.copytree(BUNDLED_ENGINE, tmp_path / "engine")
    path = tmp_path / "engine" / "engine.json"
    manifest = json.loads(path.read_text())
    manifest["provenance"]["base_model"] = "x\x1b]0;title\x07\ny"
    manifest["prompts"][0]["text"] = manifest["prompts"][-1]["text"] = "\x1b[2J"
    path.write_text(json.dumps(manifest))
    result = command_line("info", path.parent)
    assert result.returncode == 0
    assert r"x\x1b]0;title\x07 y" in result.stdout
    assert not {"\x1b", "\x07"} & set(result.stdout)


def test_an_engine_that_is_not_there(tmp_path):
    for command in ("info", "verify"):
        result = command_line(command, tmp_path / "none")
        assert result.returncode == 4
        assert "no such engine directory" in result.stderr
