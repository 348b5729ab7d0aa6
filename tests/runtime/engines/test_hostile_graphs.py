"""Graphs whose manifest vouches for them, and that are not what it says: opened, run, and ended."""

from __future__ import annotations

from threading import Event, Thread
from threading import enumerate as threads
from time import monotonic

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper
from support.hostile_graphs import behind, by_data, edited, endless
from support.program import command_line
from support.rows import random_rows

from defectrt.engines import providers
from defectrt.engines.loading import load_engine
from defectrt.errors import EngineError
from defectrt.images.png import encode_png

SHAPES = {"latent": (3, 16, 16), "pixels": (3, 32, 32), "attention": (1, 8, 8)}


def call(engine, graph):
    """One batch of two through a graph."""
    if graph == "denoiser":
        return engine.step(random_rows(engine.manifest, 2))
    (name,) = {"encoder": ["pixels"], "decoder": ["latent"]}[graph]
    array = np.zeros((2, *SHAPES[name]), np.float32)
    return engine.encode(array) if graph == "encoder" else engine.decode(array)


GRAPHS = [
    ("encoder", "latent"),
    ("decoder", "pixels"),
    ("denoiser", "next_latent"),
    ("denoiser", "attention"),
]


@pytest.mark.parametrize(("graph", "output"), GRAPHS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite(graph, output, value, tmp_path):
    directory = edited(tmp_path / "e", graph, behind(output, "Add", np.float32(value)))
    with (
        load_engine(directory, threads=1) as engine,
        pytest.raises(EngineError, match=f"{graph}: .*{output} has values that are not finite"),
    ):
        call(engine, graph)


@pytest.mark.parametrize(("graph", "output"), GRAPHS)
@pytest.mark.parametrize("size", [(1, 1), (2, 32), (6000, 8)], ids=str)
def test_another_size_than_the_manifest_has(graph, output, size, tmp_path):
    """A dimension without a name is whatever the graph makes of it."""

    def edit(model):
        channels = 1 if output == "attention" else 3
        behind(output, "Expand", np.array([2, channels, *size]))(model)
        node = model.node[-1]
        starts = helper.make_tensor("from", TensorProto.INT64, [2], [0, 0])
        ends = helper.make_tensor("to", TensorProto.INT64, [2], [1, 1])
        axes = helper.make_tensor("of", TensorProto.INT64, [2], [2, 3])
        model.initializer.extend([starts, ends, axes])
        cut = helper.make_node("Slice", ["before", "from", "to", "of"], ["one"])
        node.input[0] = "one"
        model.node.insert(len(model.node) - 1, cut)

    try:
        engine = load_engine(edited(tmp_path / "e", graph, edit), threads=1)
    except EngineError:
        return  # ONNX Runtime saw it already
    with engine, pytest.raises(EngineError, match=f"{graph}: "):
        call(engine, graph)


def test_a_size_that_no_shape_inference_sees_is_told_after_the_call(tmp_path):
    directory = edited(tmp_path / "e", "decoder", by_data)
    with load_engine(directory, threads=1) as engine:
        engine.decode(np.zeros((2, 3, 16, 16), np.float32))
        expected = r"decoder: .*pixels is float32 \[2, 3, 1, 1\], expected float32 \[2, 3, 32, 32\]"
        with pytest.raises(EngineError, match=expected):
            engine.decode(np.ones((2, 3, 16, 16), np.float32))


def test_the_command_ends_with_the_code_of_an_engine(tmp_path):
    directory = edited(tmp_path / "e", "decoder", behind("pixels", "Add", np.float32(np.nan)))
    good = tmp_path / "good"
    good.mkdir()
    (good / "a.png").write_bytes(encode_png(np.full((40, 40, 3), 150, np.uint8)))
    ended = command_line("synthesize", "--images", good, "--engine", directory, "--quiet")
    assert ended.returncode == EngineError.exit_code, ended.stderr
    assert "pixels has values that are not finite" in ended.stderr


def test_a_call_that_never_returns_is_ended_from_another_thread(tmp_path):
    directory = edited(tmp_path / "e", "decoder", endless("pixels"))
    with load_engine(directory, threads=1) as engine:
        failed, ended = [], Event()

        def run():
            try:
                call(engine, "decoder")
            except EngineError as error:
                failed.append(error)
            ended.set()

        Thread(target=run, daemon=True).start()
        until = monotonic() + 10
        while not ended.wait(0.02) and monotonic() < until:
            engine.stop()
    assert failed


def test_a_graph_that_does_not_open_is_given_up(tmp_path, monkeypatch):
    """Products of constants are folded while a graph is opened, and these take a second or two."""

    def edit(graph):
        behind("pixels", "Identity")(graph)
        graph.node.pop()
        make = helper.make_node
        graph.initializer.append(helper.make_tensor("side", TensorProto.INT64, [2], [800, 800]))
        graph.node.append(make("ConstantOfShape", ["side"], ["c0"]))
        graph.node.extend(make("MatMul", [f"c{i}"] * 2, [f"c{i + 1}"]) for i in range(60))
        graph.node.append(make("ReduceMax", ["c60"], ["nothing"], keepdims=0))
        graph.node.append(make("Add", ["before", "nothing"], ["pixels"]))

    directory = edited(tmp_path / "e", "decoder", edit)
    real, before, opened, cancelled = ort.InferenceSession, set(threads()), [], []

    def opening(*arguments, **options):
        try:
            session = real(*arguments, **options)
        except Exception as error:
            cancelled.append(error)
            raise
        opened.append(session)
        return session

    monkeypatch.setattr(ort, "InferenceSession", opening)
    monkeypatch.setattr(providers, "OPENING", 0.2)
    monkeypatch.setattr(providers, "_GRACE", 0)
    with pytest.raises(EngineError, match=r"decoder.onnx: not open after 0 s"):
        load_engine(directory, threads=1)
    (thread,) = set(threads()) - before
    done = len(opened)
    thread.join()
    assert cancelled
    assert len(opened) == done
