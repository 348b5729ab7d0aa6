"""Engines whose graphs are not what their manifest says, though it vouches for them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from defectrt.engines.manifest import MANIFEST, hash_file

#: An engine of plain arithmetic.
TINY = Path(__file__).parents[2] / "cpp" / "tests" / "engine"


def edited(directory, name, edit):
    """A copy of the engine with one graph edited, and a manifest that vouches for it."""
    shutil.copytree(TINY, directory)
    model = onnx.load(directory / f"{name}.onnx")
    edit(model.graph)
    onnx.save(model, directory / f"{name}.onnx")
    manifest = json.loads((directory / MANIFEST).read_text())
    manifest["files"] = {p.name: hash_file(p).model_dump() for p in directory.glob("*.onnx")}
    (directory / MANIFEST).write_text(json.dumps(manifest))
    return directory


def behind(output, kind, constant=None):
    """An edit: one more operator behind an output, whose declared shape stays what it was."""

    def edit(graph):
        for node in graph.node:
            for i, name in enumerate(node.output):
                if name == output:
                    node.output[i] = "before"
        inputs = ["before"]
        if constant is not None:
            array = np.asarray(constant)
            element = helper.np_dtype_to_tensor_dtype(array.dtype)
            graph.initializer.append(
                helper.make_tensor("constant", element, array.shape, array.ravel())
            )
            inputs.append("constant")
        graph.node.append(helper.make_node(kind, inputs, [output]))

    return edit


def endless(output):
    """An edit: a loop that never ends behind an output."""

    def edit(graph):
        behind(output, "Identity")(graph)
        last = graph.node.pop()
        value = helper.make_tensor_value_info
        body = helper.make_graph(
            [
                helper.make_node("Identity", ["go"], ["go_on"]),
                helper.make_node("Identity", ["v"], ["same"]),
            ],
            "body",
            [
                value("i", TensorProto.INT64, []),
                value("go", TensorProto.BOOL, []),
                value("v", TensorProto.FLOAT, None),
            ],
            [value("go_on", TensorProto.BOOL, []), value("same", TensorProto.FLOAT, None)],
        )
        graph.initializer.append(helper.make_tensor("true", TensorProto.BOOL, [], [True]))
        graph.node.append(
            helper.make_node("Loop", ["", "true", last.input[0]], [output], body=body)
        )

    return edit


def by_data(graph):
    """An edit: pixels of 32 x 32 for a latent of zeros, else of 1 x 1."""
    behind("pixels", "Identity")(graph)
    graph.node.pop()
    make = helper.make_node
    graph.initializer.extend(
        [
            helper.make_tensor("zero", TensorProto.INT64, [2], [0, 0]),
            helper.make_tensor("axes", TensorProto.INT64, [2], [2, 3]),
            helper.make_tensor("small", TensorProto.INT64, [2], [1, 1]),
            helper.make_tensor("large", TensorProto.INT64, [2], [32, 32]),
            helper.make_tensor("nothing", TensorProto.FLOAT, [], [0.0]),
        ]
    )
    graph.node.extend(
        [
            make("ReduceMax", ["latent"], ["most"], keepdims=0),
            make("Greater", ["most", "nothing"], ["some"]),
            make("Where", ["some", "small", "large"], ["ends"]),
            make("Slice", ["before", "zero", "ends", "axes"], ["pixels"]),
        ]
    )
