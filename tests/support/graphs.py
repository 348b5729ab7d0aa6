"""Graphs of a tiny model, exported once and then filled with the weights of others of its form.

An export takes half a minute. A build compares its graphs with the model they stand for, so one
that was filled wrongly, or is of another form, does not become an engine.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import onnx_ir as ir
from torch import Tensor, nn

#: Constants of fewer values are of the form of a model, not of its weights.
_SMALL = 64
EXPORT = "defectrt.export.graphs.export_graph"
#: The same, as the backends of TensorRT name it.
PLANS = "defectrt.export.tensorrt.plans.export_graph"
#: The first outputs of encoder and decoder.
AUTOENCODER = ("latent", "pixels")


@contextmanager
def kept(folder: Path) -> Iterator[None]:
    """Keep in ``folder`` the graphs that are exported meanwhile, by their first output."""
    from defectrt.export.graphs import export_graph

    def keep(module, inputs, outputs, **options):
        graph = export_graph(module, inputs, outputs, **options)
        ir.save(graph, folder / f"{outputs[0]}.onnx")
        turned = json.dumps(_turned(graph, module.state_dict()))
        (folder / f"{outputs[0]}.json").write_text(turned)
        return graph

    folder.mkdir()
    with patch(EXPORT, keep):
        yield


def filled(folder: Path, only: Container[str] | None = None) -> Callable[..., ir.Model]:
    """What takes the place of `export_graph`: the graphs kept in ``folder`` with other weights.

    Those with other first outputs than ``only`` are exported.
    """
    from defectrt.export.graphs import export_graph

    def fill(module: nn.Module, inputs, outputs, **options) -> ir.Model:
        if only is not None and outputs[0] not in only:
            return export_graph(module, inputs, outputs, **options)
        graph, weights = ir.load(folder / f"{outputs[0]}.onnx"), module.state_dict()
        turned = json.loads((folder / f"{outputs[0]}.json").read_text())
        weights |= {name: weights[of].T.contiguous() for name, of in turned.items()}
        for name, value in graph.graph.initializers.items():
            assert name in weights or value.const_value.size < _SMALL, name
            if name in weights:
                value.const_value = ir.tensor(weights[name].numpy(), name=name)
                value.shape = value.const_value.shape
        return graph

    return fill


def _turned(graph: ir.Model, weights: dict[str, Tensor]) -> dict[str, str]:
    """The weights that the exporter transposed and named anew, by the new names."""
    matrices = {w.numpy().T.tobytes(): name for name, w in weights.items() if w.ndim == 2}
    values = graph.graph.initializers.items()
    found = {name: matrices.get(v.const_value.numpy().tobytes()) for name, v in values}
    return {name: of for name, of in found.items() if of and name not in weights}
