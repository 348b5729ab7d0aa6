"""Providers by name: there, started and used for all of a graph, or an error; the dispatch."""

from __future__ import annotations

import json
import re
import shutil
import sys
from dataclasses import replace

import onnxruntime as ort
import pytest

from defectrt import engine as module
from defectrt.engine import load_engine
from defectrt.errors import EngineError, MissingExtraError, UsageError
from defectrt.manifest import read_manifest
from defectrt.onnx_engine import OnnxEngine
from defectrt.providers import PROVIDERS, Provider, installed
from defectrt.signature import signatures

AZURE = Provider("azure", "AzureExecutionProvider", "onnxruntime-azure", lambda *_: {})


@pytest.fixture
def azure(monkeypatch):
    """A provider that is there and can do nothing, as one of ours."""
    if AZURE.ort not in ort.get_available_providers():
        pytest.skip("this ONNX Runtime has no provider that can do nothing itself")
    monkeypatch.setitem(PROVIDERS, "azure", AZURE)


def test_the_names_are_onnx_runtimes():
    known = {*ort.get_all_providers(), "NvTensorRTRTXExecutionProvider"}  # of its own builds
    assert {p.ort for p in PROVIDERS.values()} <= known
    assert list(PROVIDERS) == ["cpu", "cuda", "tensorrt", "tensorrt-rtx", "openvino"]
    assert "cpu" in installed()


def test_a_name_that_nobody_knows(engine):
    with pytest.raises(UsageError, match=r"'gpu': one of cpu, cuda, tensorrt, tensorrt-rtx, open"):
        load_engine(engine, provider="gpu")


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("cuda", "onnxruntime-gpu"),
        ("tensorrt", "onnxruntime-gpu"),
        ("tensorrt-rtx", "onnxruntime-trt-rtx"),
        ("openvino", "onnxruntime-openvino"),
    ],
)
def test_a_provider_that_is_not_there_is_named_with_what_brings_it(
    engine, monkeypatch, name, package
):
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(EngineError, match=rf"no provider '{name}'; it has: cpu; .* {package}$"):
        load_engine(engine, provider=name)


def test_a_provider_that_does_not_start_is_an_error(engine, monkeypatch):
    """ONNX Runtime itself goes on without it."""
    real = ort.InferenceSession
    there = [PROVIDERS["cuda"].ort, "CPUExecutionProvider"]
    monkeypatch.setattr(ort, "get_available_providers", lambda: there)
    monkeypatch.setattr(
        ort,
        "InferenceSession",
        lambda *a, providers, **k: real(*a, providers=["CPUExecutionProvider"], **k),
    )
    with pytest.raises(EngineError, match=r"encoder.onnx: ONNX Runtime could not start cuda"):
        load_engine(engine, provider="cuda")


def test_what_a_provider_does_not_take_is_an_error_and_not_left_to_the_cpu(engine, azure):
    message = r"encoder.onnx: azure does not take (\d+) of \1 operators \(\d+ \w+, .*, …\)"
    with pytest.raises(EngineError, match=message):
        load_engine(engine, threads=1, provider="azure")


def test_only_operators_on_sizes_may_stay_on_the_cpu(engine, azure, monkeypatch):
    monkeypatch.setitem(PROVIDERS, "azure", replace(AZURE, sizes=True))
    message = r"azure does not take (\d+) of (\d+) operators \(.*Reshape, .*Mul, .*Add, "
    with pytest.raises(EngineError, match=message) as error:
        load_engine(engine, threads=1, provider="azure")
    left, total = map(int, re.search(message, str(error.value)).groups())
    assert left < total - 20


def test_a_runtime_that_does_not_say_where_operators_run_is_refused(engine, azure, monkeypatch):
    monkeypatch.delattr(ort.InferenceSession.__base__, "get_provider_graph_assignment_info")
    load_engine(engine, threads=1).close()
    with pytest.raises(EngineError, match=r"does not say .* azure needs 1\.24 or newer"):
        load_engine(engine, threads=1, provider="azure")


def test_tensorrt_is_built_for_all_batches_at_once(engine):
    denoiser = signatures(read_manifest(engine))["denoiser"]
    for name, prefix in (("tensorrt", "trt"), ("tensorrt-rtx", "nv")):
        options = PROVIDERS[name].options(denoiser, 1)
        assert options[f"{prefix}_profile_min_shapes"].startswith("latent:1x4x16x16,timestep:1,")
        assert options[f"{prefix}_profile_max_shapes"].endswith(",anchor:64x4x16x16")


def of_backend(engine, directory, backend):
    shutil.copytree(engine, directory)
    path = directory / "engine.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"backend": backend}))
    return directory


def test_a_backend_whose_package_is_missing_names_the_extra(engine, tmp_path, monkeypatch):
    other = of_backend(engine, tmp_path / "e", "aoti")
    where = module._Backend("onnx_engine", "OnnxEngine", "gpu")
    monkeypatch.setitem(module._BACKENDS, "aoti", where)
    monkeypatch.delitem(sys.modules, "defectrt.onnx_engine")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.delitem(sys.modules, "defectrt.providers")
    with pytest.raises(MissingExtraError, match=r"needs the package onnx.*'defectrt\[gpu\]'"):
        load_engine(other)


def test_a_backend_is_a_line_in_the_table_and_takes_no_provider(engine, tmp_path, monkeypatch):
    other = of_backend(engine, tmp_path / "e", "aoti")
    monkeypatch.delitem(module._BACKENDS, "aoti", raising=False)
    with pytest.raises(EngineError, match="this build does not run the backend 'aoti'"):
        load_engine(other)
    monkeypatch.setitem(module._BACKENDS, "aoti", module._Backend("onnx_engine", "OnnxEngine"))
    with pytest.raises(UsageError, match="a provider is chosen for ONNX engines only"):
        load_engine(other, provider="cpu")
    with load_engine(other, threads=1) as opened:
        assert type(opened).__name__ == OnnxEngine.__name__
