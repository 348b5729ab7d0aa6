"""What a backend has to do so that `defectrt.export.build` can make an engine with it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol

from defectrt.engines.engine import Engine
from defectrt.engines.manifest import Manifest, Target
from defectrt.training.models.stable_diffusion import StableDiffusion

from .source import Part

__all__ = ["Backend", "Say"]


class Say(Protocol):
    """Tell whoever waits what is being done."""

    def __call__(self, what: str, *, new: bool = True) -> None:
        """``new`` begins a stage; otherwise it is more about the one at hand."""


class Backend(Protocol):
    """How the graphs of a model become the files of an engine."""

    @property
    def name(self) -> Literal["onnx", "aoti", "tensorrt", "tensorrt-rtx"]:
        """As in the manifest."""

    @property
    def precision(self) -> Literal["float32", "float16", "bfloat16"]:
        """As in the manifest."""

    @property
    def tolerance(self) -> float:
        """Largest difference to PyTorch allowed, relative to the largest value of an output."""

    @property
    def autoencoder_tolerance(self) -> float:
        """The same for the encoder and the decoder."""

    @property
    def stages(self) -> int:
        """How many stages `export` says that it begins, over all graphs."""

    def check(self) -> None:
        """Raise if this machine cannot build it, before anything is opened or written."""

    def prepare(self, model: StableDiffusion) -> None:
        """Change the model's weights into those that the engine holds, to be compared with it."""

    def export(self, part: Part, directory: Path, say: Say) -> None:
        """Write a graph; ``say`` is told before each stage what it is."""

    def target(self) -> Target | None:
        """What it is compiled for; None for graphs that run anywhere."""

    def tools(self) -> dict[str, str]:
        """Versions of what it was made with, beside defectrt and torch."""

    def open(self, directory: Path, manifest: Manifest) -> Engine:
        """The engine to be compared with PyTorch, or what it was made of if it cannot run here."""
