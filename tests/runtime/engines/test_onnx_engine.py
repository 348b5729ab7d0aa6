"""The ONNX directory: what stands in its graphs, and what its loader refuses."""

from __future__ import annotations

import json
import shutil

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from support.rows import random_rows

from defectrt.engines.loading import load_engine
from defectrt.engines.manifest import MANIFEST, hash_file, read_manifest
from defectrt.errors import EngineError
from defectrt.export import graphs

#: Importing diffusers and opening models takes seconds.
pytestmark = pytest.mark.slow


def tampered(engine, directory, name, data):
    """A copy with one file replaced, and a manifest that vouches for it."""
    shutil.copytree(engine, directory)
    (directory / name).write_bytes(data)
    return vouched(directory)


def vouched(directory):
    """The manifest brought in line with the files that are there."""
    manifest = json.loads((directory / MANIFEST).read_text())
    manifest["files"] = {
        path.name: hash_file(path).model_dump()
        for path in directory.iterdir()
        if path.name != MANIFEST
    }
    (directory / MANIFEST).write_text(json.dumps(manifest))
    return directory


def edited(engine, directory, name, edit):
    """A copy with one graph edited, and a manifest that vouches for it."""
    model = onnx.load(engine / name, load_external_data=False)
    edit(model)
    return tampered(engine, directory, name, model.SerializeToString())


def test_the_attention_is_one_function_whose_body_is_the_standard_operator(engine):
    model = onnx.load(engine / "denoiser.onnx", load_external_data=False)
    functions = {f.name: f for f in model.functions}
    assert model.functions
    assert {f.domain for f in model.functions} == {"defectrt"}
    body = [node.op_type for node in functions["MaskedCrossAttention"].node]
    assert body.count("Attention") == 1
    calls = [n for n in model.graph.node if n.op_type == "MaskedCrossAttention"]
    assert len(calls) == 10
    assert all(n.domain == "defectrt" for n in calls)
    opsets = {o.domain: o.version for o in model.opset_import}
    assert opsets[""] == 23
    onnx.checker.check_model(str(engine / "denoiser.onnx"))


def test_no_graph_has_what_is_slow_on_a_cpu(engine):
    """Group normalisation unfolds into twenty operators; a GEGLU in one piece is cut in two."""
    for name in ("encoder", "denoiser", "decoder"):
        graph = onnx.load(engine / f"{name}.onnx", load_external_data=False).graph
        kinds = {node.op_type for node in graph.node}
        assert "GroupNormalization" not in kinds
        assert "InstanceNormalization" in kinds
        assert name == "encoder" or "Split" not in kinds  # there it parts mean and variance


@pytest.mark.parametrize("shape", [(3, 8, 5), (3, 8, 5, 7)], ids=["sequence", "image"])
def test_a_lowered_group_norm_computes_the_same(shape, tmp_path):
    norm = torch.nn.GroupNorm(4, 8, eps=0.1)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    model = graphs.export_graph(norm, {"input": x}, ["y"])
    graphs.lower_group_norms(model)
    graphs.save_graph(model, tmp_path, "norm")
    onnx.checker.check_model(onnx.load(tmp_path / "norm.onnx"), full_check=True)
    session = ort.InferenceSession(tmp_path / "norm.onnx", providers=["CPUExecutionProvider"])
    for rows in (x, x[:1]):
        (y,) = session.run(None, {"input": rows.numpy()})
        np.testing.assert_allclose(y, norm(rows).detach(), atol=2e-6)


def test_the_prompt_tables_are_safetensors_that_the_graph_runs_on(engine, tmp_path):
    from safetensors.numpy import load_file, save_file

    tables = load_file(engine / "prompts.safetensors")
    manifest = read_manifest(engine)
    assert len(tables) == 20
    assert all(t.shape[0] == len(manifest.prompts) for t in tables.values())
    assert all(t.ndim == 3 for t in tables.values())
    model = onnx.load(engine / "denoiser.onnx", load_external_data=False)
    external = {i.name for i in model.graph.initializer if i.external_data}
    assert external == set(tables)
    save_file({k: v * 0 for k, v in tables.items()}, tmp_path / "zero.safetensors")
    other = tampered(
        engine, tmp_path / "e", "prompts.safetensors", (tmp_path / "zero.safetensors").read_bytes()
    )
    rows = random_rows(manifest, 2)
    with load_engine(engine, threads=1) as one, load_engine(other, threads=1) as two:
        assert np.abs(one.step(rows)[0] - two.step(rows)[0]).max() > 1e-4


def test_a_file_that_is_no_graph(engine, tmp_path):
    with pytest.raises(EngineError, match="ONNX Runtime cannot open the graph"):
        load_engine(tampered(engine, tmp_path / "e", "denoiser.onnx", b"\x80\x04pickle"))


def test_a_graph_of_another_engine(engine, tmp_path):
    encoder = (engine / "encoder.onnx").read_bytes()
    with pytest.raises(EngineError, match=r"not the graph of this manifest: .*pixels"):
        load_engine(tampered(engine, tmp_path / "e", "decoder.onnx", encoder))


def test_a_graph_that_is_not_there(engine, tmp_path):
    shutil.copytree(engine, tmp_path / "e")
    (tmp_path / "e" / "decoder.onnx").unlink()
    with pytest.raises(EngineError, match=r"lists no decoder.onnx"):
        load_engine(vouched(tmp_path / "e"))


def test_a_graph_of_a_fixed_batch_is_refused(engine, tmp_path):
    def fix(model):
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = 2

    with pytest.raises(EngineError, match=r"input latent: .*\(2, 4, 16, 16\).*says .*'B', 4, 16"):
        load_engine(edited(engine, tmp_path / "e", "decoder.onnx", fix))


def test_outputs_are_told_apart_by_name(engine, tmp_path):
    def swap(model):
        outputs = list(model.graph.output)
        del model.graph.output[:]
        model.graph.output.extend(reversed(outputs))

    other = edited(engine, tmp_path / "e", "denoiser.onnx", swap)
    rows = random_rows(read_manifest(engine), 2)
    with load_engine(engine, threads=1) as one, load_engine(other, threads=1) as two:
        for expected, got in zip(one.step(rows), two.step(rows), strict=True):
            np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    "location", ["{engine}/prompts.safetensors", "../tiny/prompts.safetensors"]
)
def test_a_graph_that_reads_outside_the_directory(engine, tmp_path, location):
    def move(model):
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = location.format(engine=engine)

    shutil.copytree(engine, tmp_path / "tiny")
    with pytest.raises(EngineError, match="ONNX Runtime cannot open the graph"):
        load_engine(edited(engine, tmp_path / "e", "denoiser.onnx", move))


def test_an_operator_that_nobody_knows(engine, tmp_path):
    def rename(model):
        model.graph.node[-1].op_type = "RunThis"

    with pytest.raises(EngineError, match="ONNX Runtime cannot open the graph"):
        load_engine(edited(engine, tmp_path / "e", "decoder.onnx", rename))


def test_a_failure_of_onnx_runtime_is_one_of_the_engine(engine, monkeypatch):
    class Failing:
        def run(self, *_):
            raise RuntimeError("out of memory")

    with load_engine(engine, threads=1) as opened:
        monkeypatch.setitem(opened._graphs, "denoiser", Failing())
        with pytest.raises(EngineError, match="denoiser: ONNX Runtime failed: out of memory"):
            opened.step(random_rows(opened.manifest, 1))


def test_large_weights_stand_beside_the_graph_and_the_tables_where_they_were(
    engine, tmp_path, monkeypatch
):
    shutil.copytree(engine, tmp_path / "e")
    monkeypatch.setattr(graphs, "_INLINE_BYTES", 10_000)
    model = ir.load(engine / "denoiser.onnx")
    graphs.save_graph(model, tmp_path / "e", "denoiser")
    graph = onnx.load(tmp_path / "e" / "denoiser.onnx", load_external_data=False).graph
    stored = {
        tensor.name: entry.value
        for tensor in graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    tables = {name for name, file in stored.items() if file == "prompts.safetensors"}
    assert len(tables) == 20
    assert set(stored.values()) == {"prompts.safetensors", "denoiser.onnx.data"}
    assert sum(len(t.raw_data) for t in graph.initializer) < 60_000
    rows = random_rows(read_manifest(engine), 2)
    with load_engine(engine, threads=1) as one, load_engine(vouched(tmp_path / "e")) as two:
        assert "denoiser.onnx.data" in two.manifest.files
        for expected, got in zip(one.step(rows), two.step(rows), strict=True):
            np.testing.assert_allclose(got, expected, atol=1e-6)
