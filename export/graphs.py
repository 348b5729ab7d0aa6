"""From torch modules to ONNX files: the attention as one function, the prompts as safetensors."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir
import onnxruntime
import torch
from onnxscript import BOOL, FLOAT, script
from onnxscript import opset23 as op
from onnxscript.values import Opset
from safetensors.numpy import save
from torch import Tensor, nn

from defectrt.engines.manifest import TOLERANCES, Manifest
from defectrt.engines.onnx_engine import OnnxEngine
from defectrt.training.models.stable_diffusion import StableDiffusion

from .backend import Say
from .fused import split_geglu
from .narrow import TYPES, narrow, round_weights
from .rowstep import RowStep
from .source import Part

__all__ = [
    "OPSET",
    "PROMPTS",
    "MaskedCrossAttention",
    "Onnx",
    "export_graph",
    "halve_weights",
    "lower_group_norms",
    "move_prompt_tables",
    "save_graph",
]

OPSET = 23
PROMPTS = "prompts.safetensors"
#: A protobuf cannot be larger than 2 GiB; weights above this go to a file beside the graph.
_INLINE_BYTES = 1_500_000_000
_SMALL_BYTES = 1024


@dataclass(frozen=True)
class Onnx:
    """The backend onnx; see `defectrt.export.backend.Backend`.

    precision     of the U-Net's products, ``float32`` or ``float16``, which is for cards. Norms,
                  the step, the autoencoder, whose range is wide, and the boundary stay float32
    half_weights  round the weights to float16 and store them so; arithmetic stays float32
    """

    precision: Literal["float32", "float16"] = "float32"
    half_weights: bool = False
    name: ClassVar[Literal["onnx"]] = "onnx"
    stages: ClassVar[int] = 3

    @property
    def tolerance(self) -> float:
        """By precision."""
        return TOLERANCES[self.precision]

    @property
    def autoencoder_tolerance(self) -> float:
        """It stays float32."""
        return TOLERANCES["float32"]

    def check(self) -> None:
        """It can be built wherever it can be imported."""

    @torch.no_grad()
    def prepare(self, model: StableDiffusion) -> None:
        """Round the weights that become narrow, or all, if they are to be halved."""
        round_weights(model.unet, TYPES[self.precision])
        for part in (model.unet, model.vae) if self.half_weights else ():
            for parameter in part.parameters():
                parameter.copy_(parameter.half())

    def export(self, part: Part, directory: Path, say: Say) -> None:
        """Write ``<name>.onnx``, and ``prompts.safetensors`` with the denoiser."""
        say(f"exporting {part.name}")
        denoiser = part.name == "denoiser"
        if isinstance(part.module, RowStep):
            split_geglu(part.module)
            if self.precision != "float32":
                narrow(part.module.unet, TYPES[self.precision])
        graph = export_graph(part.module, part.example(2), part.outputs, function=denoiser)
        lower_group_norms(graph)
        if denoiser:
            move_prompt_tables(graph, directory)
        if self.half_weights:
            halve_weights(graph)
        save_graph(graph, directory, part.name)

    def target(self) -> None:
        """They run anywhere."""

    def tools(self) -> dict[str, str]:
        """The version of ONNX Runtime."""
        return {"onnxruntime": onnxruntime.__version__}

    def open(self, directory: Path, manifest: Manifest) -> OnnxEngine:
        """On the CPU."""
        return OnnxEngine(directory, manifest)


@script(Opset("defectrt", 1), default_opset=op)
def MaskedCrossAttention(  # noqa: N802 - the name of the operator
    q: FLOAT[...],
    k_in: FLOAT[...],
    v_in: FLOAT[...],
    k_out: FLOAT[...],
    v_out: FLOAT[...],
    inside: BOOL[...],
) -> FLOAT[...]:
    """Eqs. 10 and 11: one standard Attention over [K_in; K_out] with a boolean mask."""
    here = op.Unsqueeze(inside, op.Constant(value_ints=[1, 3]))
    one = op.Constant(value_ints=[1])
    queries = op.Concat(
        op.Shape(inside, start=0, end=1), one, op.Shape(inside, start=1, end=2), axis=0
    )
    shape_in = op.Concat(queries, op.Shape(k_in, start=2, end=3), axis=0)
    shape_out = op.Concat(queries, op.Shape(k_out, start=2, end=3), axis=0)
    visible = op.Concat(op.Expand(here, shape_in), op.Expand(op.Not(here), shape_out), axis=3)
    k = op.Concat(k_in, k_out, axis=2)
    v = op.Concat(v_in, v_out, axis=2)
    out = op.Attention(q, k, v, visible)
    return out


def export_graph(
    module: nn.Module, inputs: dict[str, Tensor], outputs: Sequence[str], *, function: bool = False
) -> ir.Model:
    """Export with a dynamic batch as first dimension of every input and output.

    ``function`` attaches the body of `MaskedCrossAttention`.
    """
    # from 64 rows on diffusers' upsampling, which is on the way from latents, takes another way to
    # the same result: asked for more, the exporter would trace all in vain and then ask for this
    least, most = (1, 4096) if "pixels" in inputs else (0, 63)
    batch = torch.export.Dim("batch", min=least, max=most)
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            module.eval(),
            (),
            kwargs=inputs,
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes={name: {0: batch} for name in inputs},
            input_names=list(inputs),
            output_names=list(outputs),
            verbose=False,
        )
    assert program is not None
    model: ir.Model = program.model
    if function:
        body = ir.serde.deserialize_function(MaskedCrossAttention.to_function_proto())
        model.functions[body.identifier()] = body
        model.opset_imports["defectrt"] = 1
    for node in model.graph.all_nodes():
        node.metadata_props.clear()  # source lines of the machine that built it
        node.doc_string = None
    return model


def move_prompt_tables(model: ir.Model, directory: Path) -> None:
    """Move the prompts' keys and values into ``prompts.safetensors``.

    The graph then refers to them there, as ONNX external data: the same bytes open as
    safetensors [P,L,H·d] a layer, and are what the graph runs on.
    """
    tables = {
        name: value
        for name, value in model.graph.initializers.items()
        if name.endswith((".processor.k", ".processor.v")) and value.const_value is not None
    }
    path = directory / PROMPTS
    numpy = {name: value.const_value.numpy().copy() for name, value in tables.items()}
    path.write_bytes(save(numpy))
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    for name, value in tables.items():
        start, end = header[name]["data_offsets"]
        value.const_value = ir.ExternalTensor(
            PROMPTS,
            offset=8 + length + start,
            length=end - start,
            dtype=value.const_value.dtype,
            shape=value.const_value.shape,
            name=name,
            base_dir=directory,
        )


def save_graph(model: ir.Model, directory: Path, name: str) -> None:
    """Write ``name.onnx``, with weights in ``name.onnx.data`` if they do not fit.

    What is in another file already, the prompts' tables, stays where it is.
    """
    inside = [
        value
        for value in model.graph.initializers.values()
        if value.const_value is not None and not isinstance(value.const_value, ir.ExternalTensor)
    ]
    if sum(value.const_value.nbytes for value in inside) >= _INLINE_BYTES:
        # shapes and other small constants are needed where graphs are read without their data
        large = [value for value in inside if value.const_value.nbytes >= _SMALL_BYTES]
        tensors = ir.external_data.convert_tensors_to_external(
            [value.const_value for value in large], directory, f"{name}.onnx.data"
        )
        for value, tensor in zip(large, tensors, strict=True):
            value.const_value = tensor
    ir.save(model, directory / f"{name}.onnx")


def lower_group_norms(model: ir.Model) -> None:
    """Write group normalisations as instance normalisations of groups, then scale and bias.

    Exact but for rounding. ONNX Runtime's CPU provider has no kernel for the former and unfolds it
    into some twenty operators; so it is 1 to 5 % faster (docs/performance.md).
    """
    graph = model.graph
    for node in [n for n in graph.all_nodes() if n.op_type == "GroupNormalization"]:
        x, *affine = node.inputs
        nodes = _group_norm(graph, node, x)
        graph.insert_before(node, nodes)
        out, old = nodes[-1].outputs[0], node.outputs[0]
        old.replace_all_uses_with(out, replace_graph_outputs=True)
        graph.remove(node, safe=True)
        out.name, out.shape, out.type = old.name, old.shape, old.type
        for value in affine:
            if not value.uses():
                graph.initializers.pop(value.name, None)


def _group_norm(graph: ir.Graph, node: ir.Node, x: ir.Value) -> list[ir.Node]:
    groups, name = node.attributes["num_groups"].as_int(), node.outputs[0].name
    affine = [v.const_value.numpy().reshape(-1, *[1] * (len(x.shape) - 2)) for v in node.inputs[1:]]
    apart, unit, zero, scale, bias = (
        _constant(graph, f"{name}.{what}", array)
        for what, array in (
            ("groups", np.array([0, groups, -1])),
            ("unit", np.ones(groups, np.float32)),
            ("zero", np.zeros(groups, np.float32)),
            ("scale", affine[0]),
            ("bias", affine[1]),
        )
    )
    split, shape = ir.node("Reshape", [x, apart]), ir.node("Shape", [x])
    epsilon = {"epsilon": node.attributes["epsilon"].as_float()}
    norm = ir.node("InstanceNormalization", [split.outputs[0], unit, zero], epsilon)
    joined = ir.node("Reshape", [norm.outputs[0], shape.outputs[0]])
    scaled = ir.node("Mul", [joined.outputs[0], scale])
    return [split, shape, norm, joined, scaled, ir.node("Add", [scaled.outputs[0], bias])]


def _constant(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    value = ir.val(name, const_value=ir.tensor(array, name=name))
    graph.initializers.add(value)
    return value


def halve_weights(model: ir.Model) -> None:
    """Store large weights as float16, cast up where they are used: half the file.

    ONNX Runtime folds the casts while it loads, so arithmetic stays float32. Exact: only what
    float16 holds without loss is stored so, which weights are that were rounded before and
    tables such as the noise schedule's are not.
    """
    for value in list(model.graph.initializers.values()):
        tensor = value.const_value
        if tensor is None or tensor.dtype != ir.DataType.FLOAT or tensor.size < 256:
            continue
        if isinstance(tensor, ir.ExternalTensor):
            continue
        full = tensor.numpy()
        rounded = full.astype(np.float16)
        if not np.array_equal(rounded.astype(np.float32), full):
            continue
        half = ir.Value(
            name=f"{value.name}_half",
            shape=value.shape,
            type=ir.TensorType(ir.DataType.FLOAT16),
            const_value=ir.tensor(rounded, name=f"{value.name}_half"),
        )
        cast = ir.node("Cast", [half], {"to": ir.DataType.FLOAT})
        cast.outputs[0].shape, cast.outputs[0].dtype = value.shape, ir.DataType.FLOAT
        value.replace_all_uses_with(cast.outputs[0])
        del model.graph.initializers[value.name]
        model.graph.initializers.add(half)
        model.graph.insert_before(model.graph[0], cast)


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns about packages it could use and about its own internals."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
