"""Plans of TensorRT and TensorRT-RTX from a model: typed graphs, their proof, and the builder."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import onnx_ir as ir
import onnxruntime
from torch import nn

from defectrt.engines.manifest import TOLERANCES, Manifest, Target
from defectrt.engines.onnx_engine import OnnxEngine
from defectrt.engines.tensorrt_engine import SUFFIX, library
from defectrt.errors import UsageError
from defectrt.training.models.stable_diffusion import StableDiffusion

from ..backend import Say
from ..graphs import export_graph, save_graph
from ..narrow import TYPES, Narrowed, narrow, round_weights
from ..rowstep import RowStep
from ..source import Part
from .builder import Plan, build_apart

__all__ = ["Plans", "Precision", "widen"]

Precision = Literal["float32", "float16", "bfloat16"]


@dataclass
class Plans:
    """What the two backends share; see `defectrt.export.backend.Backend`.

    precision     of the U-Net's products; norms, the step and the boundary stay float32
    rows          fewest, usual and most rows of a call
    capabilities  compute capabilities of the cards that it is for
    """

    precision: Precision = "float16"
    rows: tuple[int, int, int] = (1, 8, 32)
    capabilities: tuple[int, ...] = ()
    name: ClassVar[Literal["tensorrt", "tensorrt-rtx"]]
    stages: ClassVar[int] = 6
    _graphs: tempfile.TemporaryDirectory[str] | None = field(default=None, repr=False)

    @property
    def tolerance(self) -> float:
        """float16 arithmetic reaches 5e-4 on a tiny model; a wrong weight 1e-1."""
        return 1e-3 if self.precision == "float32" else 2e-2

    @property
    def autoencoder_tolerance(self) -> float:
        """The same, if it is narrowed."""
        return self.tolerance if self.narrow_autoencoder else TOLERANCES["float32"]

    @property
    def narrow_autoencoder(self) -> bool:
        """It stays float32, with TF32 products, since its range is wide."""
        return False

    def plan(self) -> Plan:
        """What the builder is asked for."""
        raise NotImplementedError

    @property
    def apart(self) -> bool:
        """Whether the graph that is checked is another than the one that is built."""
        return self.precision == "bfloat16"

    def rewrite(self, path: Path) -> None:
        """Change the denoiser's graph into what the builder is to have."""

    def check_rows(self) -> None:
        """Raise `UsageError` unless a profile can be made of them; any call must find room."""
        least, usual, most = self.rows
        if not 1 == least <= usual <= most:
            raise UsageError(f"rows {least}, {usual}, {most}: give 1, usual and most, rising")

    def prepare(self, model: StableDiffusion) -> None:
        """Round the weights that become narrow."""
        for part in (model.unet, model.vae) if self.narrow_autoencoder else (model.unet,):
            round_weights(part, TYPES[self.precision])

    def export(self, part: Part, directory: Path, say: Say) -> None:
        """Write a plan; the graph that proves it stays until `open`."""
        if self._graphs is None:
            self._graphs = tempfile.TemporaryDirectory(dir=directory.parent, prefix=".graphs-")
        proof = Path(self._graphs.name)
        typed = proof / "typed" if self.apart else proof
        typed.mkdir(exist_ok=True)
        say(f"exporting {part.name}")
        denoiser = part.name == "denoiser"
        module = self._typed(part.module)
        graph = export_graph(module, part.example(2), part.outputs, function=denoiser)
        path = typed / f"{part.name}.onnx"
        save_graph(graph, typed, part.name)
        if self.apart:
            widen(graph)
            save_graph(graph, proof, part.name)
        del graph, module
        if denoiser:
            self.rewrite(path)
        what = f"building {part.name}"
        say(what)
        build_apart(
            path,
            directory / f"{part.name}.{SUFFIX[self.name]}",
            self.plan(),
            lambda phase: say(f"{what}: {phase}", new=False),
        )

    def target(self) -> Target:
        """The cards and rows that it is for."""
        return Target(
            device="cuda",
            capabilities=list(map(str, self.capabilities)),
            rows=sorted(set(self.rows)),
            runtime={self.name: str(library(self.name).__version__)},
        )

    def tools(self) -> dict[str, str]:
        """The versions of the builder and of what checked the graphs, and what was checked."""
        return {
            self.name: str(library(self.name).__version__),
            "onnxruntime": onnxruntime.__version__,
            "checked": "the graphs on the CPU; plans of this backend have never run on hardware",
        }

    def open(self, directory: Path, manifest: Manifest) -> OnnxEngine:
        """The graphs that the plans were built from, on the CPU: the plans need a card."""
        assert self._graphs is not None
        some = next(iter(manifest.files.values()))
        files = {path.name: some for path in Path(self._graphs.name).glob("*.onnx")}
        return _Graphs(self._graphs, manifest.model_copy(update={"files": files}))

    def _typed(self, module: nn.Module) -> nn.Module:
        dtype = TYPES[self.precision]
        if isinstance(module, RowStep):
            narrow(module.unet, dtype)
        elif self.narrow_autoencoder:
            return Narrowed(module, dtype)
        return module


class _Graphs(OnnxEngine):
    """The graphs in a temporary folder, which goes with them."""

    def __init__(self, folder: tempfile.TemporaryDirectory[str], manifest: Manifest) -> None:
        super().__init__(Path(folder.name), manifest)
        self._folder = folder

    def close(self) -> None:
        super().close()
        self._folder.cleanup()


def widen(graph: ir.Model) -> None:
    """bfloat16 becomes float32, the rounded weights as they are, all weights in memory.

    ONNX Runtime has no bfloat16 on a CPU; so it computes the same graph on the same weights.
    """
    brain, wide = ir.DataType.BFLOAT16, ir.DataType.FLOAT
    for value in graph.graph.initializers.values():
        if value.const_value is not None:
            numbers = value.const_value.numpy()
            if value.const_value.dtype == brain:
                numbers, value.dtype = numbers.astype("float32"), wide
            value.const_value = ir.tensor(numbers.copy(), name=value.name)
    for node in graph.graph.all_nodes():
        if "to" in node.attributes and node.attributes["to"].as_int() == brain:
            node.attributes["to"] = ir.AttrInt64("to", wide)
        for output in node.outputs:
            if output.dtype == brain:
                output.dtype = wide
