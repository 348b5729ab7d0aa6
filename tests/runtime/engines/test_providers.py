"""Providers by name: there, started and used for all of a graph, or an error; the dispatch."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from typing import get_args

import numpy as np
import onnxruntime as ort
import pytest
from support.fake_engine import FakeEngine
from support.outputs import records
from support.rows import random_rows

from defectrt import doctor
from defectrt.config.engine import EngineConfig, ProviderName
from defectrt.engines import loading, providers, trials
from defectrt.engines.loading import load_engine
from defectrt.engines.manifest import read_manifest
from defectrt.engines.onnx_engine import OnnxEngine
from defectrt.engines.providers import PROVIDERS, Provider, installed
from defectrt.engines.signature import signatures
from defectrt.engines.trials import Trial, choose, draw_rows, try_providers
from defectrt.errors import EngineError, InputError, MissingExtraError, UsageError

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
        ("tensorrt-rtx", "onnxruntime-ep-nv-tensorrt-rtx"),
        ("openvino", "onnxruntime-openvino"),
    ],
)
def test_a_provider_that_is_not_there_is_named_with_what_brings_it(
    engine, monkeypatch, name, package
):
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(
        EngineError, match=rf"no provider '{name}'; it has: cpu; .* {package}$"
    ) as e:
        load_engine(engine, provider=name)
    assert ("pip uninstall" in str(e.value)) == (
        name != "tensorrt-rtx"
    )  # a plugin replaces nothing


def test_a_plugin_is_loaded_once_and_needs_a_device(engine, monkeypatch):
    loaded = []
    plugin = SimpleNamespace(get_library_path=lambda: "lib.so")
    monkeypatch.setitem(sys.modules, PROVIDERS["tensorrt-rtx"].plugin, plugin)
    monkeypatch.setattr("defectrt.engines.providers.find_spec", lambda name: object())
    monkeypatch.setattr("defectrt.engines.providers._loaded", set())
    monkeypatch.setattr(ort, "register_execution_provider_library", lambda *a: loaded.append(a))
    assert "tensorrt-rtx" in installed()
    for _ in range(2):
        with pytest.raises(EngineError, match=r"^tensorrt-rtx finds no device here"):
            load_engine(engine, provider="tensorrt-rtx")
    assert loaded == [("NvTensorRTRTXExecutionProvider", "lib.so")]


def test_a_plugin_that_cannot_be_loaded_is_an_error(engine, monkeypatch):
    monkeypatch.setattr("defectrt.engines.providers.find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, PROVIDERS["tensorrt-rtx"].plugin, None)
    with pytest.raises(EngineError, match="cannot open the graph on tensorrt-rtx: import of"):
        load_engine(engine, provider="tensorrt-rtx")


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
    assert 0 < left < total


def test_a_runtime_that_does_not_say_where_operators_run_is_refused(engine, azure, monkeypatch):
    monkeypatch.delattr(ort.InferenceSession.__base__, "get_provider_graph_assignment_info")
    load_engine(engine, threads=1).close()
    with pytest.raises(EngineError, match=r"does not say .* azure needs 1\.24 or newer"):
        load_engine(engine, threads=1, provider="azure")


def test_cuda_without_a_kernel_for_attention_is_refused_and_noted(engine, monkeypatch):
    """Such a runtime takes the graph and puts the attention on the CPU."""
    there = [PROVIDERS["cuda"].ort, "CPUExecutionProvider"]
    monkeypatch.setattr(ort, "get_available_providers", lambda: there)
    monkeypatch.setattr(ort, "__version__", "1.24.4")
    fault = "cuda in this ONNX Runtime (1.24.4) has no kernel for Attention"
    with pytest.raises(EngineError, match=re.escape(fault)) as error:
        load_engine(engine, provider="cuda")
    assert str(error.value).endswith("run: pip install --upgrade 'onnxruntime-gpu>=1.25'")
    (found,) = [f for f in doctor._providers() if f.text.startswith(fault)]
    assert (found.level, found.advice) == (
        "note",
        "pip install --upgrade 'onnxruntime-gpu>=1.25'",
    )
    monkeypatch.setattr(ort, "__version__", "1.25.0")
    assert not [f for f in doctor._providers() if "Attention" in f.text]
    assert providers.require("cuda").name == "cuda"


@pytest.mark.parametrize(("precision", "tf32"), [("float32", "0"), ("float16", "1")])
def test_float32_stays_float32_on_cuda_unless_the_engine_is_narrow(
    engine, monkeypatch, precision, tf32
):
    given = []

    def session(path, sess_options, providers):
        given.extend(providers)
        raise RuntimeError("far enough")

    monkeypatch.setattr(ort, "InferenceSession", session)
    signature = signatures(read_manifest(engine))["decoder"]
    with pytest.raises(EngineError, match="far enough"):
        providers.open_session(engine / "decoder.onnx", PROVIDERS["cuda"], signature, 1, precision)
    assert given[0][1]["use_tf32"] == tf32


def test_tensorrt_is_built_for_all_batches_at_once(engine):
    denoiser = signatures(read_manifest(engine))["denoiser"]
    for name, prefix in (("tensorrt", "trt"), ("tensorrt-rtx", "nv")):
        options = PROVIDERS[name].options(denoiser, 1)
        assert options[f"{prefix}_profile_min_shapes"].startswith("latent:1x4x16x16,timestep:1,")
        assert options[f"{prefix}_profile_max_shapes"].endswith(",anchor:64x4x16x16")


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt-rtx"])
def test_tensorrt_gets_no_flag_of_a_precision_so_that_types_are_the_graphs(engine, name):
    """With one, TensorRT would choose types itself, the autoencoder's too."""
    provider, signature = PROVIDERS[name], signatures(read_manifest(engine))["denoiser"]
    given = {**provider.options(signature, 1), **provider.narrow}
    assert given
    assert not [key for key in given if re.search("fp16|bf16|int8", key)]


def of_backend(engine, directory, backend):
    shutil.copytree(engine, directory)
    path = directory / "engine.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"backend": backend}))
    return directory


def test_a_backend_whose_package_is_missing_names_the_extra(engine, tmp_path, monkeypatch):
    other = of_backend(engine, tmp_path / "e", "aoti")
    where = loading._Backend("onnx_engine", "OnnxEngine", "gpu")
    monkeypatch.setitem(loading._BACKENDS, "aoti", where)
    monkeypatch.delitem(sys.modules, "defectrt.engines.onnx_engine")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.delitem(sys.modules, "defectrt.engines.providers")
    trust = read_manifest(other).fingerprint
    with pytest.raises(MissingExtraError, match=r"needs the package onnx.*'defectrt\[gpu\]'"):
        load_engine(other, trust=trust)


def test_a_backend_is_a_line_in_the_table_and_takes_no_provider(engine, tmp_path, monkeypatch):
    other = of_backend(engine, tmp_path / "e", "aoti")
    monkeypatch.delitem(loading._BACKENDS, "aoti", raising=False)
    with pytest.raises(EngineError, match="this build does not run the backend 'aoti'"):
        load_engine(other)
    monkeypatch.setitem(loading._BACKENDS, "aoti", loading._Backend("onnx_engine", "OnnxEngine"))
    with pytest.raises(UsageError, match="a provider is chosen for ONNX engines only"):
        load_engine(other, provider="cpu")
    with load_engine(other, threads=1, trust=read_manifest(other).fingerprint) as opened:
        assert type(opened).__name__ == OnnxEngine.__name__


class Tried(FakeEngine):
    """An engine on a provider: openvino is off by 0.01, cuda does not open."""

    def __init__(self, directory, manifest, *, threads, provider):
        if provider == "cuda":
            raise EngineError("no device")
        super().__init__()
        self.provider = provider

    def step(self, rows):
        latent, attention = super().step(rows)
        return latent * (1 + 0.01 * (self.provider == "openvino")), attention


@pytest.fixture
def several(monkeypatch):
    monkeypatch.setattr(trials, "OnnxEngine", Tried)
    for place in ("defectrt.engines.trials.installed", "defectrt.engines.providers.installed"):
        monkeypatch.setattr(place, lambda: ["cpu", "cuda", "tensorrt", "openvino"])


def test_every_provider_is_tried_and_wrong_ones_are_found(several, tmp_path):
    manifest = FakeEngine().manifest
    cpu, cuda, tensorrt, openvino = try_providers(tmp_path, manifest)
    assert (cpu.fault, cpu.error, tensorrt.fault) == ("", 0, "")
    assert min(cpu.rate, tensorrt.rate) > 0
    assert cuda.fault == "no device"
    assert openvino.fault == "openvino is 0.01 off the CPU"


def test_a_narrow_engine_may_round_as_such_engines_do(several, tmp_path):
    manifest = FakeEngine().manifest.model_copy(update={"precision": "float16"})
    assert [trial.provider for trial in try_providers(tmp_path, manifest) if trial.fault] == [
        "cuda"
    ]


def test_rows_to_try_with_are_rows_of_a_defect():
    manifest = FakeEngine().manifest
    rows = draw_rows(manifest, 3)
    latent, _ = FakeEngine().step(rows)
    assert latent.shape == (3, 3, 16, 16)
    outside = np.broadcast_to(rows.mask == 0, latent.shape)
    np.testing.assert_array_equal(latent[outside], rows.latent[outside])
    assert 0 < rows.mask.mean() < 1


@pytest.mark.parametrize(
    ("rates", "best"),
    [
        ({"cpu": 10}, "cpu"),
        ({"cpu": 10, "openvino": 11}, "cpu"),
        ({"cpu": 10, "openvino": 15}, "openvino"),
        ({"cpu": 10, "openvino": 15, "cuda": 200}, "cuda"),
        ({"cuda": 200}, "cuda"),
    ],
)
def test_the_fastest_is_chosen_if_it_is_clearly_faster_than_the_cpu(rates, best):
    broken = Trial("tensorrt", fault="no device")
    assert choose([*(Trial(*item) for item in rates.items()), broken]).provider == best


def test_none_that_works_is_an_error_with_all_reasons():
    with pytest.raises(EngineError, match=r"no provider runs this engine: cuda: a; openvino: b"):
        choose([Trial("cuda", fault="a"), Trial("openvino", fault="b")])


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_auto_takes_what_was_chosen(engine, several, monkeypatch):
    monkeypatch.setattr(trials, "choose", lambda tried: next(t for t in tried if t.rate))
    with load_engine(engine, threads=1, provider="auto") as opened:
        assert opened.provider == "cpu"
    monkeypatch.setattr(trials, "choose", lambda tried: tried[1])
    with pytest.raises(EngineError, match="could not start cuda"):
        load_engine(engine, provider="auto")


def test_doctor_says_which_provider_to_use_and_why(several, tmp_path, monkeypatch):
    found = list(doctor._trials(tmp_path, FakeEngine().manifest))
    assert [f.text.partition(":")[0] for f in found if f.level == "ok"][:2] == ["cpu", "tensorrt"]
    notes = [f.text for f in found if f.level == "note"]
    assert notes == ["cuda cannot run it: no device", "openvino cannot run it: openvino is 0.01 "
                     "off the CPU"]  # fmt: skip
    assert found[-1].text.startswith("use --provider ")
    monkeypatch.setattr(trials, "installed", lambda: ["cpu"])
    *_, last = doctor._trials(tmp_path, FakeEngine().manifest)
    assert last.text == "use --provider cpu: the only one here"


def test_the_command_line_knows_the_names():
    assert get_args(ProviderName) == (*PROVIDERS, "auto")


def test_a_job_says_what_it_ran_on_and_goes_on_with_nothing_else(go, fake_engine):
    out, summary = go()
    assert summary.provider == "cpu"
    assert json.loads((out / "job.json").read_text())["provider"] == "cpu"
    assert {r["provider"] for r in records(out)} == {"cpu"}
    assert '"provider":"cpu"' in (out / "report.html").read_text()
    fake_engine[1].provider = "openvino"
    with pytest.raises(InputError, match=r"another job \(provider: 'cpu' -> 'openvino'\)"):
        go()


@pytest.fixture
def bound(monkeypatch):
    """The CPU with its memory bound, as a GPU's is."""
    monkeypatch.setitem(PROVIDERS, "cpu", replace(PROVIDERS["cpu"], device="cpu"))


def test_bound_memory_gives_the_same_bits(engine, bound, monkeypatch):
    manifest = read_manifest(engine)
    with OnnxEngine(engine, manifest, threads=1) as one:
        monkeypatch.undo()
        with OnnxEngine(engine, manifest, threads=1) as two:
            assert type(one._graphs["denoiser"]) is not type(two._graphs["denoiser"])
            for n, seed in ((1, 0), (4, 1), (4, 2), (2, 3)):
                rows = random_rows(manifest, n, seed)
                for a, b in zip(one.step(rows), two.step(rows), strict=True):
                    np.testing.assert_array_equal(a, b)
                np.testing.assert_array_equal(one.decode(rows.latent), two.decode(rows.latent))


def test_what_bound_memory_gave_stays_when_it_is_used_again(engine, bound):
    manifest = read_manifest(engine)
    some, others = random_rows(manifest, 3), random_rows(manifest, 3, seed=1)
    with OnnxEngine(engine, manifest, threads=1) as opened:
        latent, attention = opened.step(some)
        kept = latent.copy(), attention.copy()
        opened.step(others)
        np.testing.assert_array_equal(latent, kept[0])
        np.testing.assert_array_equal(attention, kept[1])


def test_a_device_is_given_one_call_at_a_time(engine, bound, monkeypatch):
    manifest = read_manifest(engine)
    with OnnxEngine(engine, manifest, threads=4, calls=16) as opened:
        assert opened.calls == 1
    monkeypatch.undo()
    with OnnxEngine(engine, manifest, threads=4, calls=2) as opened:
        assert opened.calls == 2


@pytest.mark.parametrize(
    ("provider", "rows"),
    [("cpu", 4), ("openvino", 4), ("cuda", 16), ("tensorrt", 16), ("tensorrt-rtx", 16)],
)
def test_a_card_gets_larger_batches_unless_told_otherwise(provider, rows):
    engine = FakeEngine()
    engine.provider = provider
    assert loading.batch_size_of(EngineConfig(), engine) == rows
    assert loading.batch_size_of(EngineConfig(batch_size=7), engine) == 7


def test_threads_take_turns_at_bound_memory(engine, bound):
    manifest = read_manifest(engine)
    batches = [random_rows(manifest, 1 + i % 3, seed=i) for i in range(24)]
    with OnnxEngine(engine, manifest, threads=1) as opened, ThreadPoolExecutor(4) as pool:
        expected = [opened.step(rows)[0] for rows in batches]
        for got, wanted in zip(pool.map(opened.step, batches), expected, strict=True):
            np.testing.assert_array_equal(got[0], wanted)


def test_threads_that_wait_sleep(monkeypatch, engine):
    """Where cores are shared, spinning ones keep each other waiting."""
    seen = []

    class Options(ort.SessionOptions):
        def add_session_config_entry(self, key, value):
            seen.append((key, value))
            super().add_session_config_entry(key, value)

    monkeypatch.setattr(ort, "SessionOptions", Options)
    load_engine(engine).close()
    assert seen.count(("session.intra_op.allow_spinning", "0")) == 3


@pytest.mark.parametrize(("told", "then"), [(None, "passive"), ("active", "active")])
def test_openmp_waits_asleep_unless_told_otherwise(told, then):
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    environment |= {"OMP_WAIT_POLICY": told} if told else {}
    code = "import defectrt, os; print(os.environ['OMP_WAIT_POLICY'])"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == then
