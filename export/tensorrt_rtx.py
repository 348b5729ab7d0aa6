"""The backend tensorrt-rtx: plans for RTX cards, built ahead of time on a machine without one."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal

import onnx_ir as ir
import onnxruntime
import torch
from torch import Tensor, nn

from defectrt.errors import UsageError
from defectrt.manifest import Manifest
from defectrt.onnx_engine import OnnxEngine
from defectrt.tensorrt_library import CARDS, library
from defectrt.training.model import StableDiffusion

from .backend import Say
from .graphs import export_graph, save_graph
from .plan import Plan, build_apart
from .rowstep import RowStep
from .source import Part

__all__ = ["Precision", "TensorRTRTX", "narrow", "widen"]

Precision = Literal["float32", "float16", "bfloat16"]
_TYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_TURING = 75


@dataclass
class TensorRTRTX:
    """See `defectrt.export.backend.Backend`.

    capabilities  the cards it is for, as compute capabilities
    precision     of the U-Net's products; norms, the step and the boundary stay float32
    rows          fewest, usual and most rows of a call
    """

    capabilities: tuple[int, ...]
    precision: Precision = "float16"
    rows: tuple[int, int, int] = (1, 8, 32)
    name: ClassVar[Literal["tensorrt-rtx"]] = "tensorrt-rtx"
    stages: ClassVar[int] = 6
    _graphs: tempfile.TemporaryDirectory[str] | None = field(default=None, repr=False)

    @property
    def tolerance(self) -> float:
        """float16 arithmetic reaches 5e-4 on a tiny model; a wrong weight 1e-1."""
        return 1e-3 if self.precision == "float32" else 2e-2

    def check(self) -> None:
        """Raise `UsageError` for a card or precision that cannot be, or without TensorRT-RTX."""
        if unknown := [c for c in self.capabilities if c not in CARDS]:
            raise UsageError(
                f"TensorRT-RTX builds nothing for compute capability {', '.join(map(str, unknown))}"
                f"; it does for {_listed()}. For other cards, 90 (H100, H200) among them, use "
                "--backend aoti, or --backend tensorrt on a machine that has the card"
            )
        if not self.capabilities:
            raise UsageError(f"say for which cards: --compute-capability, one of {_listed()}")
        if len(set(self.capabilities)) < len(self.capabilities):
            raise UsageError("a compute capability is given twice")
        if _TURING in self.capabilities and self.precision != "float16":
            raise UsageError(
                "cards of compute capability 75 multiply float16 only; use --precision fp16, or "
                "leave 75 out"
            )
        least, usual, most = self.rows
        if not 1 <= least <= usual <= most:
            raise UsageError(f"rows {least}, {usual}, {most}: give fewest, usual and most, rising")
        library(self.name)

    @torch.no_grad()
    def prepare(self, model: StableDiffusion) -> None:
        """Round the U-Net's weights, and for Turing the autoencoder's."""
        for part in (model.unet, model.vae) if self._narrow_autoencoder else (model.unet,):
            for module in part.modules():
                for parameter in () if _is_norm(module) else module.parameters(recurse=False):
                    parameter.copy_(parameter.to(_TYPES[self.precision]))

    def export(self, part: Part, directory: Path, say: Say) -> None:
        """Write ``<name>.engine``; the graph that it was built from stays until `open`."""
        if self._graphs is None:
            self._graphs = tempfile.TemporaryDirectory(dir=directory.parent, prefix=".graphs-")
        proof = Path(self._graphs.name)
        graphs = proof / "typed" if self.precision == "bfloat16" else proof
        graphs.mkdir(exist_ok=True)
        say(f"exporting {part.name}")
        denoiser = part.name == "denoiser"
        module = self._typed(part.module)
        graph = export_graph(module, part.example(2), part.outputs, function=denoiser)
        save_graph(graph, graphs, part.name)
        if graphs != proof:
            widen(graph)
            save_graph(graph, proof, part.name)
        del graph, module
        what = f"building {part.name}"
        say(what)
        build_apart(
            graphs / f"{part.name}.onnx",
            directory / f"{part.name}.engine",
            self.plan(),
            lambda phase: say(f"{what}: {phase}", new=False),
        )

    def plan(self) -> Plan:
        """What the builder is asked for."""
        exact = self.precision == "float32"
        return Plan(self.name, self.rows, capabilities=self.capabilities, tf32=not exact)

    def tools(self) -> dict[str, str]:
        """The version of TensorRT-RTX, and of what the graphs were checked with."""
        return {
            "tensorrt-rtx": str(library(self.name).__version__),
            "onnxruntime": onnxruntime.__version__,
        }

    def open(self, directory: Path, manifest: Manifest) -> OnnxEngine:
        """The graphs that the plans were built from, on the CPU: the plans need a card.

        ONNX Runtime has no bfloat16 on the CPU; there the same graph is run with the same
        weights in float32.
        """
        assert self._graphs is not None
        some = next(iter(manifest.files.values()))
        files = {path.name: some for path in Path(self._graphs.name).glob("*.onnx")}
        return _Graphs(self._graphs, manifest.model_copy(update={"files": files}))

    @property
    def _narrow_autoencoder(self) -> bool:
        """It stays float32, as TF32 where cards can, since its range is wide; Turing cannot."""
        return _TURING in self.capabilities

    def _typed(self, module: nn.Module) -> nn.Module:
        dtype = _TYPES[self.precision]
        if isinstance(module, RowStep):
            narrow(module.unet, dtype)
        elif self._narrow_autoencoder:
            return _Narrowed(module, dtype)
        return module


class _Graphs(OnnxEngine):
    """The graphs in a temporary folder, which goes with them."""

    def __init__(self, folder: tempfile.TemporaryDirectory[str], manifest: Manifest) -> None:
        super().__init__(Path(folder.name), manifest)
        self._folder = folder

    def close(self) -> None:
        super().close()
        self._folder.cleanup()


class _Narrowed(nn.Module):
    """An encoder or decoder with a narrow autoencoder, and float32 at its boundary."""

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        model = replace(module.model, vae=deepcopy(module.model.vae))
        narrow(model.vae, dtype)
        self.module, self.dtype = type(module)(model), dtype

    def forward(self, **inputs: Tensor) -> Tensor:
        return self.module(*(x.to(self.dtype) for x in inputs.values())).float()


def _is_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.GroupNorm | nn.LayerNorm)


def narrow(module: nn.Module, dtype: torch.dtype) -> None:
    """Cast weights to ``dtype`` in place, all but those of norms, which stay float32.

    What enters a norm is cast up and what leaves it down, so that the graph says in its types
    that statistics are float32.
    """
    for part in module.modules():
        if _is_norm(part):
            part.register_forward_pre_hook(lambda _, inputs: tuple(x.float() for x in inputs))
            part.register_forward_hook(lambda _, inputs, out: out.to(dtype))
        else:
            for tensor in (*part.parameters(recurse=False), *part.buffers(recurse=False)):
                tensor.data = tensor.data.to(dtype) if tensor.is_floating_point() else tensor.data


def widen(graph: ir.Model) -> None:
    """bfloat16 becomes float32, the rounded weights as they are: for machines without bfloat16."""
    narrow, wide = ir.DataType.BFLOAT16, ir.DataType.FLOAT
    for value in graph.graph.initializers.values():
        if value.const_value is not None:
            numbers = value.const_value.numpy()
            if value.const_value.dtype == narrow:
                numbers, value.dtype = numbers.astype("float32"), wide
            value.const_value = ir.tensor(numbers.copy(), name=value.name)
    for node in graph.graph.all_nodes():
        if "to" in node.attributes and node.attributes["to"].as_int() == narrow:
            node.attributes["to"] = ir.AttrInt64("to", wide)
        for output in node.outputs:
            if output.dtype == narrow:
                output.dtype = wide


def _listed() -> str:
    return "; ".join(f"{capability} ({cards})" for capability, cards in CARDS.items())
