"""Write tests/engine: an engine of three tiny graphs in plain arithmetic, for the C++ tests.

Its latent is the image, halved; under the mask, a row step with the defect's prompt pulls the
latent to -0.8 plus a tenth of what it was, and leaves everything else as it is. Its attention is
the mask. Run it with the extra "export" installed: ``python cpp/tests/make_engine.py``.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import onnx
from onnx import TensorProto, helper

HERE = Path(__file__).parent / "engine"
WINDOW, LATENT = 32, 16
FLOAT, INT = TensorProto.FLOAT, TensorProto.INT64


def tensor(name, *shape, kind=FLOAT):
    return helper.make_tensor_value_info(name, kind, ["B", *shape])


def constant(name, value, kind=FLOAT):
    return helper.make_tensor(name, kind, [], [value])


def save(name, nodes, inputs, outputs, constants=()):
    graph = helper.make_graph(nodes, name, inputs, outputs, list(constants))
    opset = helper.make_opsetid("", 18)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, HERE / f"{name}.onnx")


def graphs():
    latent = (3, LATENT, LATENT)
    pool = helper.make_node(
        "AveragePool", ["pixels"], ["latent"], kernel_shape=[2, 2], strides=[2, 2]
    )
    save("encoder", [pool], [tensor("pixels", 3, WINDOW, WINDOW)], [tensor("latent", *latent)])
    scales = helper.make_tensor("scales", FLOAT, [4], [1, 1, 2, 2])
    grow = helper.make_node("Resize", ["latent", "", "scales"], ["pixels"], mode="nearest")
    pixels = tensor("pixels", 3, WINDOW, WINDOW)
    save("decoder", [grow], [tensor("latent", *latent)], [pixels], [scales])

    node = helper.make_node
    axes = helper.make_tensor("axes", INT, [3], [1, 2, 3])
    nodes = [
        node("Mul", ["latent", "small"], ["tenth"]),
        node("Add", ["tenth", "dark"], ["pulled"]),
        node("Equal", ["inside", "defect"], ["is_defect"]),
        node("Unsqueeze", ["is_defect", "axes"], ["row_is_defect"]),
        node("Cast", ["mask"], ["under"], to=TensorProto.BOOL),
        node("And", ["row_is_defect", "under"], ["pull"]),
        node("Where", ["pull", "pulled", "latent"], ["stepped"]),
        node("Mul", ["stepped", "region"], ["part"]),
        # what is not needed must be used all the same: every input of a row step is the graph's
        node("Add", ["a", "b"], ["ab"]),
        node("Cast", ["timestep"], ["t"], to=FLOAT),
        node("Cast", ["outside"], ["o"], to=FLOAT),
        node("Add", ["t", "o"], ["to"]),
        node("Add", ["ab", "to"], ["all"]),
        node("Mul", ["all", "zero"], ["none"]),
        node("Unsqueeze", ["none", "axes"], ["nothing"]),
        node("Add", ["part", "anchor"], ["sum"]),
        node("Add", ["sum", "nothing"], ["next_latent"]),
        node("MaxPool", ["mask"], ["attention"], kernel_shape=[2, 2], strides=[2, 2]),
    ]
    plane, scalar, index = (1, LATENT, LATENT), (), ()
    inputs = [
        tensor("latent", *latent),
        tensor("timestep", *index, kind=INT),
        tensor("mask", *plane),
        tensor("inside", *index, kind=INT),
        tensor("outside", *index, kind=INT),
        tensor("a", *scalar),
        tensor("b", *scalar),
        tensor("region", *plane),
        tensor("anchor", *latent),
    ]
    outputs = [tensor("next_latent", *latent), tensor("attention", 1, 8, 8)]
    constants = [
        constant("small", 0.1),
        constant("dark", -0.8),
        constant("zero", 0.0),
        constant("defect", 2, INT),
        axes,
    ]
    save("denoiser", nodes, inputs, outputs, constants)


def entry(path):
    data = path.read_bytes()
    return {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}


def manifest():
    rows = {n: [[10 * i, 1.0, 0.0, 0.0, 0.9] for i in range(n)] for n in (2, 4)}
    return {
        "format": "defectrt-engine",
        "format_version": 1,
        "backend": "onnx",
        "precision": "float32",
        "image": {"channels": 3, "height": WINDOW, "width": WINDOW},
        "latent": {"channels": 3, "height": LATENT, "width": LATENT},
        "attention": {"height": 8, "width": 8},
        "vae": {"scaling_factor": 1.0, "shift_factor": 0.0},
        "prompts": [
            {"role": "background", "name": "background", "text": "good surface"},
            {"role": "masked", "name": "masked", "text": ""},
            {"role": "defect", "name": "spot", "text": "spot"},
        ],
        "schedule": {
            "solver": "ddim",
            "convention": "paper",
            "prediction_type": "epsilon",
            "train_timesteps": 1000,
            "default_steps": 4,
            "tables": {
                str(n): {"inversion": table, "generation": table[::-1]} for n, table in rows.items()
            },
        },
        "provenance": {"base_model": "arithmetic", "run": {}, "dataset": [], "tools": {}},
        "files": {path.name: entry(path) for path in sorted(HERE.glob("*.onnx"))},
    }


if __name__ == "__main__":
    HERE.mkdir(exist_ok=True)
    graphs()
    text = json.dumps(manifest(), indent=1)
    (HERE / "engine.json").write_text(text + "\n", encoding="utf-8")
