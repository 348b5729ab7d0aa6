"""Cross-attention in a TensorRT plan: this project's Triton kernel as a plugin.

One half rewrites a graph so that it asks for the plugin, the other tells TensorRT what it is.
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import torch

__all__ = ["register_plugin", "use_plugin"]

PLUGIN = "TableAttention"
_DTYPES = {"HALF": torch.float16, "BF16": torch.bfloat16, "FLOAT": torch.float32}


def use_plugin(graph: ir.Model) -> ir.Model:
    """Replace every masked cross-attention by ``defectrt::TableAttention``, in place.

    Its inputs are what the rows' keys and values were gathered from, and the queries before their
    heads were split: (q [B,N,H·D], k, v [P,L,H·D], inside, outside [B], mask [B,N] float32).
    """
    for node in list(graph.graph):
        if node.op_type != "MaskedCrossAttention":
            continue
        q, k_in, v_in, k_out, _, mask = node.inputs
        heads = int(q.shape[1])
        (joined,), (k, inside) = _origin(q), _origin(k_in)
        (v, _), (_, outside) = _origin(v_in), _origin(k_out)
        cast = ir.node("Cast", [mask], {"to": ir.DataType.FLOAT})
        cast.outputs[0].shape, cast.outputs[0].dtype = mask.shape, ir.DataType.FLOAT
        plugin = ir.node(
            PLUGIN,
            [joined, k, v, inside, outside, cast.outputs[0]],
            {"heads": heads, "plugin_namespace": "defectrt", "plugin_version": "1"},
            domain="defectrt",
        )
        plugin.outputs[0].shape, plugin.outputs[0].dtype = joined.shape, joined.dtype
        sizes = ir.tensor([0, 0, heads, -1], ir.DataType.INT64, name=f"{plugin.outputs[0].name}_s")
        shape = ir.node("Constant", [], {"value": sizes})
        split = ir.node("Reshape", [plugin.outputs[0], shape.outputs[0]])
        back = ir.node("Transpose", [split.outputs[0]], {"perm": [0, 2, 1, 3]})
        back.outputs[0].shape, back.outputs[0].dtype = q.shape, q.dtype
        node.outputs[0].replace_all_uses_with(back.outputs[0])
        graph.graph.insert_before(node, [cast, plugin, shape, split, back])
        graph.graph.remove(node, safe=True)
    graph.functions.clear()
    return graph


def _origin(heads: ir.Value) -> tuple[ir.Value, ...]:
    """What split heads were made of: the projection, or the table and the rows' index."""
    split = heads.producer()
    assert split is not None
    assert split.op_type == "Transpose"
    join = split.inputs[0].producer()
    assert join is not None
    assert join.op_type == "Reshape"
    value = join.inputs[0]
    gather = value.producer()
    if gather is not None and gather.op_type == "Gather":
        return tuple(gather.inputs)
    return (value,)


def register_plugin(trt: Any, trtp: Any, capability: int) -> None:
    """Make ``defectrt::TableAttention`` known to TensorRT, as PTX for one capability.

    trt and trtp are the modules ``tensorrt`` and ``tensorrt.plugin``.
    """
    from defectrt.kernels.masked_attention.plugin import compile_plugin

    name = f"defectrt::{PLUGIN}"
    inputs = ("q", "k", "v", "inside", "outside", "mask")

    def describe(q: Any, k: Any, v: Any, inside: Any, outside: Any, mask: Any, heads: int) -> Any:
        return q.like()

    def compile_ahead(
        q: Any, k: Any, v: Any, inside: Any, outside: Any, mask: Any, heads: int, outputs: Any,
        tactic: int,
    ) -> tuple[str, str, Any, Any]:  # fmt: skip
        N, joined = (q.shape_expr[i].constant_value() for i in (1, 2))
        P, L = (k.shape_expr[i].constant_value() for i in (0, 1))
        compiled = compile_plugin(
            heads, N, L, P, joined // heads, _DTYPES[q.dtype.name], capability
        )
        launch = trtp.KernelLaunchParams()
        launch.grid_x, launch.grid_y = -(-N // compiled.tile), heads
        launch.grid_z = q.shape_expr[0]
        launch.block_x, launch.shared_mem = compiled.threads, compiled.shared
        return compiled.name, compiled.ptx, launch, trtp.SymIntExprs(0)

    # TensorRT reads the types of the one from its signature, and wants its own classes there
    describe.__annotations__ = {
        **dict.fromkeys(inputs, trtp.TensorDesc),
        "heads": int,
        "return": trtp.TensorDesc,
    }
    compile_ahead.__annotations__ = {}
    trtp.register(name)(describe)
    trtp.aot_impl(name)(compile_ahead)
