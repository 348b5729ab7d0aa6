"""Plans of TensorRT and TensorRT-RTX: what can be shown of them without a card."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from unittest.mock import patch

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, checker, helper, numpy_helper, save
from support.built import built, built_from
from support.pretended_card import pretended_card
from support.program import command_line
from support.rows import random_rows

from defectrt.engines.loading import load_engine
from defectrt.engines.manifest import read_manifest, verify
from defectrt.engines.tensorrt_engine import CARDS, library
from defectrt.errors import EngineError, MissingExtraError, UsageError
from defectrt.export.build import build
from defectrt.export.narrow import narrow
from defectrt.export.tensorrt import plans
from defectrt.export.tensorrt.builder import Plan, build_apart, serialise
from defectrt.export.tensorrt.plugin import use_plugin
from defectrt.export.tensorrt.tensorrt import TensorRT
from defectrt.export.tensorrt.tensorrt_rtx import TensorRTRTX

#: Plans take a minute to build.
pytestmark = pytest.mark.slow

PLAN = Plan("tensorrt-rtx", (1, 2, 4), capabilities=(89,))


@pytest.fixture(scope="module")
def trt():
    return pytest.importorskip("tensorrt_rtx_bindings", reason="no extra tensorrt-rtx here")


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    """y = x W, as float16 with float32 at its boundary."""
    W = numpy_helper.from_array(np.eye(16, dtype=np.float16), "W")
    nodes = [
        helper.make_node("Cast", ["x"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("MatMul", ["half", "W"], ["product"]),
        helper.make_node("Cast", ["product"], ["y"], to=TensorProto.FLOAT),
    ]
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 16]) for n in "xy")
    model = helper.make_model(
        helper.make_graph(nodes, "tiny", [x], [y], [W]),
        opset_imports=[helper.make_opsetid("", 23)],
        ir_version=10,
    )
    checker.check_model(model)
    path = tmp_path_factory.mktemp("graph") / "tiny.onnx"
    save(model, path)
    return path


def fingerprint(directory):
    return read_manifest(directory).fingerprint


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "say for which cards: --compute-capability, one of 75 "),
        ({"capabilities": (89, 90)}, "nothing for compute capability 90; .*--backend aoti"),
        ({"capabilities": (61, 87)}, "nothing for compute capability 61, 87"),
        ({"capabilities": (89, 89)}, "given twice"),
        ({"capabilities": (75,), "precision": "bfloat16"}, "75; use --precision float16"),
        ({"capabilities": (75, 89), "precision": "float32"}, "75; use --precision float16"),
        ({"capabilities": (89,), "rows": (2, 4, 8)}, "rows 2, 4, 8: give 1, usual and most"),
        ({"capabilities": (89,), "rows": (1, 8, 4)}, "rows 1, 8, 4"),
    ],
)
def test_what_tensorrt_rtx_cannot_build_is_refused_before_it_starts(options, message):
    with pytest.raises(UsageError, match=message):
        TensorRTRTX(**options).check()


def test_every_card_that_is_offered_is_known_to_the_builder(trt, graph, tmp_path):
    TensorRTRTX(capabilities=tuple(CARDS)).check()
    plan = Plan("tensorrt-rtx", (1, 2, 4), capabilities=tuple(CARDS))
    serialise(trt, graph, tmp_path / "plan", plan)
    assert (tmp_path / "plan").stat().st_size > 1000
    with pytest.raises(UsageError, match=r"TensorRT-RTX .* builds nothing for SM90"):
        serialise(trt, graph, tmp_path / "none", Plan("tensorrt-rtx", (1, 1, 1), (90,)))


def test_tensorrt_is_asked_for_by_its_extra():
    if hasattr(sys.modules.get("tensorrt"), "Builder"):
        pytest.skip("TensorRT is installed here")
    with pytest.raises(MissingExtraError, match=r"tensorrt, .*pip install 'defectrt\[tensorrt\]'"):
        TensorRT().check()
    with pytest.raises(UsageError, match="builds for the card that is there"):
        TensorRT(capabilities=(90,)).check()


def test_the_builder_says_what_it_is_at_and_writes_the_plan(trt, graph, tmp_path):
    phases = []
    build_apart(graph, tmp_path / "plan", PLAN, phases.append)
    assert (tmp_path / "plan").stat().st_size > 1000
    assert "Building engine" in phases


def test_ctrl_c_ends_the_builder_at_once(trt, graph, tmp_path):
    def interrupt(phase):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_apart(graph, tmp_path / "plan", PLAN, interrupt)
    assert not multiprocessing.active_children()
    assert not (tmp_path / "plan").exists()


def test_a_builder_that_dies_is_an_error(trt, graph, tmp_path):
    def kill(phase):
        for child in multiprocessing.active_children():
            child.kill()
            child.join()

    with pytest.raises(EngineError, match=r"tiny.onnx: the builder ended with -9, .* memory"):
        build_apart(graph, tmp_path / "plan", PLAN, kill)


def test_what_the_builder_refuses_comes_with_its_words(trt, graph, tmp_path):
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(graph.read_bytes().replace(b"MatMul", b"MatMoo"))
    with pytest.raises(EngineError, match=r"bad.onnx: TensorRT does not read the graph: .*MatMoo"):
        build_apart(bad, tmp_path / "plan", PLAN, lambda _: None)
    (tmp_path / "full.onnx").write_bytes(with_full_products(graph.read_bytes()))
    with pytest.raises(EngineError, match=r"full.onnx: TensorRT builds no plan: .*FP32 GEMM"):
        build_apart(
            tmp_path / "full.onnx",
            tmp_path / "plan",
            Plan("tensorrt-rtx", (1, 2, 4), capabilities=(75,)),
            lambda _: None,
        )


def with_full_products(data):
    """The graph with float32 products, which Turing does not have."""
    import onnx

    model = onnx.load_from_string(data)
    (W,) = model.graph.initializer
    W.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(W).astype(np.float32), "W"))
    model.graph.node[0].attribute[0].i = TensorProto.FLOAT
    return model.SerializeToString()


@pytest.mark.filterwarnings("ignore:.*no-ops in TensorRT-RTX:DeprecationWarning")
def test_tensorrts_own_options_go_through_the_builder_that_is_here(trt, graph, tmp_path):
    """TensorRT is not; TensorRT-RTX has the same API for caches and streaming."""
    plan = Plan(
        "tensorrt",
        (1, 2, 4),
        capabilities=(89,),
        tf32=False,
        timing_cache=tmp_path / "folder" / "89.timing",
        weight_streaming=True,
    )
    for _ in range(2):  # the second finds the cache of the first
        serialise(trt, graph, tmp_path / "plan", plan)
        assert (tmp_path / "folder" / "89.timing").stat().st_size
    assert not list((tmp_path / "folder").glob("*.[0-9]*"))


def test_norms_stay_float32_and_everything_else_becomes_narrow():
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(4, 8, 1),
        torch.nn.GroupNorm(2, 8),
        torch.nn.SiLU(),
        torch.nn.Conv2d(8, 4, 1),
    )
    x = 1000 + torch.randn(1, 4, 8, 8)
    exact = net.double()(x.double())
    net.float()
    narrow(net, torch.float16)
    assert [p.dtype for p in net.parameters()] == [torch.float16] * 2 + [torch.float32] * 2 + [
        torch.float16
    ] * 2
    seen = []
    net[1].register_forward_hook(lambda module, inputs, out: seen.append(out.dtype))
    out = net(x.half())
    assert out.dtype == torch.float16
    assert seen == [torch.float16]
    torch.testing.assert_close(out.double(), exact, atol=0.2, rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--compute-capability", 89], "--backend onnx takes no --compute-capability"),
        (
            ["--precision", "float16", "--batch-size", 4],
            "onnx takes no --batch-size",
        ),
        (
            ["--backend", "tensorrt-rtx", "--half-weights", "--weight-streaming"],
            "--backend tensorrt-rtx takes no --half-weights, no --weight-streaming",
        ),
        (["--backend", "tensorrt", "--compute-capability", 90], "takes no --compute-capability"),
    ],
)
def test_options_of_other_backends_are_refused(options, message):
    result = command_line("build-engine", "run", "--out", "engine", *options)
    assert result.returncode == 2
    assert message in " ".join(result.stderr.split())


@pytest.mark.slow
def test_a_card_that_cannot_be_is_refused_before_the_run_is_opened(tmp_path):
    words = ["build-engine", tmp_path / "no-run", "--out", tmp_path / "engine"]
    result = command_line(*words, "--backend", "tensorrt-rtx", "--compute-capability", 90)
    assert (result.returncode, result.stdout) == (2, "")
    assert "nothing for compute capability 90" in result.stderr
    assert "89 (GeForce RTX 40" in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_ctrl_c_while_it_builds_leaves_nothing(trt, run, tmp_path):
    options = ["--backend", "tensorrt-rtx", "--compute-capability", "89"]
    command = ["build-engine", str(run), "--out", str(tmp_path / "engine"), *options]
    with subprocess.Popen(
        [sys.executable, "-m", "defectrt", *command],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        seen = []
        for line in process.stderr:
            seen.append(line)
            if "now building encoder" in line:
                os.killpg(process.pid, signal.SIGINT)
    assert process.returncode == 130, seen
    assert "was not written" in seen[-1]
    assert not list(tmp_path.iterdir())


# --- the host's side, on a pretended card


def open_pretended(directory):
    return load_engine(directory, trust=fingerprint(directory))


def test_a_call_of_any_rows_is_split_into_what_the_plan_takes(pretended_rtx, engine, tmp_path):
    with (
        pretended_card(tmp_path),
        open_pretended(pretended_rtx) as opened,
        load_engine(engine, threads=1) as reference,
    ):
        assert opened.provider == "cuda"
        for rows in (1, 8, 9, 21):
            batch = random_rows(opened.manifest, rows)
            for got, expected in zip(opened.step(batch), reference.step(batch), strict=True):
                np.testing.assert_allclose(got, expected, atol=1e-5)


def test_all_memory_of_the_card_is_given_back(pretended_rtx, tmp_path):
    with pretended_card(tmp_path) as (cuda, _):
        opened = open_pretended(pretended_rtx)
        assert cuda.memory
        opened.step(random_rows(opened.manifest, 3))
        opened.close()
        assert not cuda.memory


def test_compiled_kernels_are_kept_and_found_again(pretended_rtx, tmp_path):
    with pretended_card(tmp_path) as (_, trt):
        open_pretended(pretended_rtx).close()
        assert not trt.compiled
        kept = sorted((tmp_path / "defectrt" / "tensorrt-rtx").iterdir())
        hashes = [entry.sha256 for entry in read_manifest(pretended_rtx).files.values()]
        assert [path.name for path in kept] == sorted(f"{digest}.cache" for digest in hashes)
        open_pretended(pretended_rtx).close()
        assert trt.compiled == [b"compiled"] * 3


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ({"cards": 0}, "needs an NVIDIA card; there is none"),
        ({"capability": 86}, "for compute capability 89, 120, the card here has 86; build it with"),
    ],
)
def test_the_wrong_card_is_refused(pretended_rtx, tmp_path, card, message):
    with pretended_card(tmp_path, **card), pytest.raises(EngineError, match=message):
        open_pretended(pretended_rtx)


def test_a_plan_that_does_not_open_or_is_another_is_refused(pretended_rtx, tmp_path):
    copy = tmp_path / "engine"
    shutil.copytree(pretended_rtx, copy)
    (copy / "decoder.engine").write_bytes((copy / "encoder.engine").read_bytes())
    reseal(copy)
    with (
        pretended_card(tmp_path) as (cuda, _),
        pytest.raises(EngineError, match=r"decoder.engine: not the plan .*: latent, pixels"),
    ):
        open_pretended(copy)
    assert not cuda.memory
    (copy / "decoder.engine").write_bytes(b"")
    reseal(copy)
    with (
        pretended_card(tmp_path),
        pytest.raises(EngineError, match="made with tensorrt-rtx pretended: the plan is empty"),
    ):
        open_pretended(copy)


def reseal(directory):
    """Write what is there now into the manifest."""
    from defectrt.engines.manifest import hash_file

    content = json.loads((directory / "engine.json").read_text())
    content["files"] = {n: hash_file(directory / n).model_dump() for n in content["files"]}
    (directory / "engine.json").write_text(json.dumps(content))


# --- a real engine for RTX cards


@pytest.mark.slow
def test_an_engine_says_which_cards_it_is_for(rtx):
    directory, _ = rtx
    manifest = verify(directory)
    assert (manifest.backend, manifest.precision) == ("tensorrt-rtx", "float16")
    assert manifest.target.capabilities == ["89", "120"]
    assert manifest.target.rows == [1, 4, 8]
    assert manifest.target.runtime == {"tensorrt-rtx": library("tensorrt-rtx").__version__}
    assert set(manifest.files) == {"encoder.engine", "denoiser.engine", "decoder.engine"}
    shown = subprocess.run(
        [sys.executable, "-m", "defectrt", "info", directory], capture_output=True, text=True
    ).stdout
    assert "89 (GeForce RTX 40, RTX Ada, L4, L40)" in shown
    assert "120 (GeForce RTX 50" in shown
    assert "1 to 8 rows" in shown


@pytest.mark.slow
def test_without_a_card_an_engine_says_so(rtx):
    if Path("/dev/nvidiactl").exists():
        pytest.skip("there is a card here")
    with pytest.raises(EngineError, match="needs an NVIDIA card and its driver: CUDA: "):
        load_engine(rtx[0], trust=fingerprint(rtx[0]))
    with pytest.raises(EngineError, match="machine code"):
        load_engine(rtx[0])


@pytest.mark.slow
def test_the_graphs_types_are_what_is_promised(rtx):
    graph = ir.load(rtx[1] / "denoiser.onnx").graph
    types = {}
    for node in graph.all_nodes():
        types.setdefault(node.op_type, set()).add(node.outputs[0].dtype)
    wide, narrow = {ir.DataType.FLOAT}, {ir.DataType.FLOAT16}
    for norm in ("GroupNormalization", "LayerNormalization", "Softmax", "Sin"):
        assert types[norm] == wide, norm
    for product in ("Conv", "MatMul", "Attention", "MaskedCrossAttention", "Gelu"):
        assert types[product] == narrow, product
    boundary = [*graph.inputs, *graph.outputs]
    assert {v.dtype for v in boundary} == wide | {ir.DataType.INT64}


@pytest.fixture(scope="module")
def source(run):
    from defectrt.export.source import open_run

    return open_run(run)


def errors_of(path, source, seed=3):
    """Largest relative errors of a denoiser graph: (graph, eager in the same types)."""
    from defectrt.export.proof import reference_step
    from defectrt.export.rowstep import RowStep, map_size
    from defectrt.export.source import random_rows as random_tensors

    side = map_size(source.model)
    rows = random_tensors(source, 8, torch.Generator().manual_seed(seed))
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    got = session.run(None, {name: x.numpy() for name, x in rows.items()})
    eager = RowStep(source.model, source.embeddings, source.content, side)
    narrow(eager.unet, torch.float16)
    with torch.no_grad():
        plain = eager(**rows)
        exact = reference_step(source, rows, side)
    worst = lambda x, y: float((x - y).abs().max() / y.abs().max())  # noqa: E731
    return [
        (worst(torch.from_numpy(g), e), worst(p.float(), e))
        for g, p, e in zip(got, plain, exact, strict=True)
    ]


@pytest.mark.slow
def test_the_narrow_graph_stays_in_its_error_budget(rtx, source):
    for graph, plain in errors_of(rtx[1] / "denoiser.onnx", source):
        assert graph <= 2 * plain + 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("sabotage", ["weight", "prompts"])
def test_a_wrong_graph_leaves_its_error_budget(rtx, source, tmp_path, sabotage):
    model = ir.load(rtx[1] / "denoiser.onnx")
    values = model.graph.initializers
    if sabotage == "weight":
        value = values["unet.conv_out.weight"]
        value.const_value = ir.tensor(value.const_value.numpy() * np.float16(1.05))
    else:  # the second prompt gets the keys of the third
        for name in [n for n in values if n.endswith("processor.k")]:
            table = values[name].const_value.numpy().copy()
            values[name].const_value = ir.tensor(table[[0, 2, 1, 3]], name=name)
    ir.save(model, tmp_path / "wrong.onnx")
    step, attention = errors_of(tmp_path / "wrong.onnx", source)
    assert step[0] > 2 * step[1] + 1e-4 or attention[0] > 2 * attention[1] + 1e-4


@pytest.mark.slow
def test_a_plan_of_a_wrong_graph_is_not_finished(rtx, run, tmp_path, monkeypatch):
    """The plans cannot be run here, so the graphs that they are made of are what is checked."""
    directory, graphs = rtx

    class Wrong(TensorRTRTX):
        def export(self, part, folder, say):
            shutil.copy(directory / f"{part.name}.engine", folder)
            say(part.name), say(part.name)

        def open(self, folder, manifest):
            copy = plans.tempfile.TemporaryDirectory()
            shutil.copytree(graphs, copy.name, dirs_exist_ok=True)
            path = Path(copy.name) / "decoder.onnx"
            model = ir.load(path)
            bias = model.graph.initializers["vae.decoder.conv_out.bias"]
            bias.const_value = ir.tensor(bias.const_value.numpy() + np.float32(0.5))
            ir.save(model, path)
            self._graphs = copy
            return super().open(folder, manifest)

    out = tmp_path / "engine"
    with pytest.raises(
        EngineError, match=r"differ .*: decoder [0-9.]+ \(at most .*\); nothing was written"
    ):
        build(run, out, Wrong(capabilities=(89,)), steps=(4,), quiet=True)
    assert not list(tmp_path.iterdir())


# --- the attention as a plugin of TensorRT


def test_tensorrt_builds_for_the_card_that_is_there(tmp_path, monkeypatch):
    monkeypatch.setattr("defectrt.export.tensorrt.tensorrt.library", lambda backend: None)
    with pretended_card(tmp_path, capability=90):
        backend = TensorRT(rows=(1, 4, 8), weight_streaming=True)
        backend.check()
        assert backend.plan() == Plan(
            "tensorrt",
            (1, 4, 8),
            timing_cache=tmp_path / "defectrt" / "tensorrt" / "90.timing",
            weight_streaming=True,
            plugin=90,
        )
    with pretended_card(tmp_path, cards=0), pytest.raises(EngineError, match="there is none"):
        TensorRT().check()


@pytest.fixture
def handed(run, engine, tmp_path):
    """An engine of TensorRT without TensorRT: plans are the kinds of the nodes they are made of."""

    def make(folder):
        from support.graphs import AUTOENCODER, PLANS, filled
        from support.pretended_card import pretended_card

        from defectrt.export.build import build
        from defectrt.export.tensorrt import plans
        from defectrt.export.tensorrt.tensorrt import TensorRT

        def hand(graph, out, plan, phase):
            out.write_text(" ".join(node.op_type for node in ir.load(graph).graph.all_nodes()))

        with (
            pretended_card(folder / "cache", capability=90) as (_, trt),
            patch(PLANS, filled(engine.parent / "graphs", AUTOENCODER)),
            patch.object(plans, "build_apart", hand),
            patch.object(plans, "library", lambda backend: trt),
            patch("defectrt.export.tensorrt.tensorrt.library", lambda backend: None),
        ):
            build(run, folder / "engine", TensorRT("bfloat16"), steps=(4,), quiet=True)

    return built("tensorrt", make, tmp_path / "of", of=built_from(run))


@pytest.mark.slow
def test_all_of_tensorrts_build_but_tensorrt_itself(handed):
    """What the builder would be handed names the plugin; what is checked does not."""
    out = handed / "engine"
    nodes = {path.stem: path.read_text().split() for path in out.glob("*.plan")}
    attentions = {
        name: (kinds.count("TableAttention"), kinds.count("MaskedCrossAttention"))
        for name, kinds in nodes.items()
    }
    assert attentions == {"encoder": (0, 0), "decoder": (0, 0), "denoiser": (10, 0)}
    manifest = verify(out)
    assert manifest.backend == "tensorrt"
    assert manifest.target.capabilities == ["90"]
    assert set(manifest.files) == {"encoder.plan", "denoiser.plan", "decoder.plan"}
    assert "never run" in manifest.provenance.tools["checked"]
    assert [path.name for path in handed.iterdir()] == ["engine"]


@pytest.mark.slow
def test_the_plugin_takes_the_place_of_the_attention(rtx):
    """With a body for the plugin in ONNX's own operators, the graph computes the same."""
    from onnxscript import opset23 as op
    from onnxscript import script
    from onnxscript.values import Opset

    path = rtx[1] / "denoiser.onnx"
    model = use_plugin(ir.load(path))
    nodes = [node for node in model.graph.all_nodes() if node.op_type == "TableAttention"]
    assert len(nodes) == 10
    assert not [n for n in model.graph.all_nodes() if n.op_type == "MaskedCrossAttention"]
    assert {n.attributes["plugin_namespace"].as_string() for n in nodes} == {"defectrt"}

    @script(Opset("defectrt", 1), default_opset=op)
    def TableAttention(  # noqa: N802
        q, k, v, inside, outside, mask, heads: int, plugin_namespace: str, plugin_version: str
    ):
        count = op.Constant(value_int=heads)
        sizes = op.Concat(
            op.Constant(value_ints=[0, 0]),
            op.Reshape(count, op.Constant(value_ints=[1])),
            op.Constant(value_ints=[-1]),
            axis=0,
        )
        q4 = op.Transpose(op.Reshape(q, sizes), perm=[0, 2, 1, 3])
        k4 = op.Transpose(op.Reshape(op.Gather(k, inside), sizes), perm=[0, 2, 1, 3])
        v4 = op.Transpose(op.Reshape(op.Gather(v, inside), sizes), perm=[0, 2, 1, 3])
        k5 = op.Transpose(op.Reshape(op.Gather(k, outside), sizes), perm=[0, 2, 1, 3])
        v5 = op.Transpose(op.Reshape(op.Gather(v, outside), sizes), perm=[0, 2, 1, 3])
        here = op.Unsqueeze(op.Cast(mask, to=9), op.Constant(value_ints=[1, 3]))
        both = op.Where(here, op.Attention(q4, k4, v4), op.Attention(q4, k5, v5))
        back = op.Transpose(both, perm=[0, 2, 1, 3])
        out = op.Reshape(back, op.Constant(value_ints=[0, 0, -1]))
        return out

    body = ir.serde.deserialize_function(TableAttention.to_function_proto())
    model.functions[body.identifier()] = body
    changed = path.with_name("plugin.onnx")
    ir.save(model, changed)
    m = read_manifest(rtx[0])
    rows = random_rows(m, 5)
    feeds = {f.name: getattr(rows, f.name) for f in fields(rows)}
    one, two = (
        ort.InferenceSession(p, providers=["CPUExecutionProvider"]).run(None, feeds)
        for p in (path, changed)
    )
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-3 * np.abs(a).max())


def test_the_plugins_kernel_is_the_attention():
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("kernels are interpreted where there is no card")
    from defectrt.kernels.masked_attention.cases import AttentionCase
    from defectrt.kernels.masked_attention.kernel import config
    from defectrt.kernels.masked_attention.plugin import constants, plugin_kernel

    case = AttentionCase(40, 36, torch.float32)
    q, k, v, inside, outside, mask, _ = case.inputs()
    joined = [x.transpose(1, 2).flatten(2).contiguous() for x in (q, k, v)]
    out = torch.empty_like(joined[0])
    tile = config(40, q.dtype).BLOCK_N
    plugin_kernel[(-(-case.N // tile), case.H, case.B)](
        *joined, inside, outside, mask, out,
        **constants(case.H, case.N, case.L, case.P, 40, q.dtype),
    )  # fmt: skip
    expected = case.reference(*case.inputs())[0].transpose(1, 2).flatten(2)
    torch.testing.assert_close(out, expected)


ASSEMBLE = """
import os, sys
os.environ["TRITON_INTERPRET"] = "0"
import pathlib, subprocess, types
import torch, triton
from defectrt.export.tensorrt.plugin import register_plugin

class Size(int):
    def constant_value(self): return int(self)

def desc(kind, *shape):
    return types.SimpleNamespace(dtype=types.SimpleNamespace(name=kind), like=lambda: "like",
                                 shape_expr=[s if s == "B" else Size(s) for s in shape])

known = {}
trtp = types.SimpleNamespace(
    TensorDesc=object, KernelLaunchParams=types.SimpleNamespace, SymIntExprs=lambda n: [None] * n,
    register=lambda name: lambda f: known.update(describe=f),
    aot_impl=lambda name: lambda f: known.update({name: f}))
capability = int(sys.argv[2])
register_plugin(None, trtp, capability)
for kind, width in (("HALF", 40), ("BF16", 80), ("FLOAT", 64)):
    q, table = desc(kind, "B", 64, 8 * width), desc(kind, 4, 77, 8 * width)
    name, ptx, launch, extra = known["defectrt::TableAttention"](
        q, table, table, None, None, None, 8, (q,), 0)
    assert (launch.grid_y, launch.grid_z, extra) == (8, "B", []), launch
    assert launch.block_x in (128, 256), launch
    head = ptx[ptx.index(".entry"):ptx.index(".reqntid")]
    assert head.count(".param") == 7, head
    assert ".file" not in ptx  # would name a path of the machine that built it
    path = pathlib.Path(sys.argv[1], kind + ".ptx")
    path.write_text(ptx)
    tool = triton.knobs.nvidia.ptxas.path
    subprocess.run([tool, f"-arch=sm_{capability}", path, "-o", os.devnull], check=True)
print("assembled")
"""


@pytest.mark.slow
def test_the_plugin_compiles_to_what_tensorrt_can_launch(tmp_path):
    """Seven pointers and nothing else, and the assembler takes it."""
    made = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ASSEMBLE, tmp_path, "89"],
        capture_output=True,
        text=True,
    )
    assert made.stdout == "assembled\n", made.stderr


def test_a_kernel_that_needs_what_is_not_passed_is_refused():
    from defectrt.kernels.masked_attention.plugin import without_scratch

    ptx = ".entry f(\n\t.param .u64 f_0,\n\t.param .u64 f_1\n)\n{ ld.param [f_0]; %s }"
    assert (
        without_scratch(ptx % "", "f", 1) == ".entry f(\n\t.param .u64 f_0\n)\n{ ld.param [f_0];  }"
    )
    with pytest.raises(ValueError, match="f uses f_1"):
        without_scratch(ptx % "ld.param [f_1];", "f", 1)
    with pytest.raises(ValueError, match="no entry g"):
        without_scratch(ptx % "", "g", 1)
