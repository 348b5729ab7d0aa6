"""The backend tensorrt: plans for the card of this machine. It has never run on hardware.

Cross-attention is this project's Triton kernel, compiled ahead of time into the plan as a plugin,
or TensorRT's own attention. What can be tried without a card is: the graphs on the CPU, the
plugin's rewriting of them, its PTX through the assembler, and the construction of the network
through TensorRT-RTX, whose API is the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import onnx_ir as ir

from defectrt.engines.tensorrt_engine import Card, cache_folder, library
from defectrt.errors import UsageError
from defectrt.extras import requires

from .builder import Plan
from .plans import Plans
from .plugin import use_plugin

__all__ = ["TensorRT"]


@dataclass
class TensorRT(Plans):
    """See `defectrt.export.backend.Backend`.

    plugin            cross-attention as the Triton kernel; otherwise TensorRT's attention
    weight_streaming  let weights stay in host memory if the card has no room for them
    """

    plugin: bool = True
    weight_streaming: bool = False
    name: ClassVar = "tensorrt"

    def check(self) -> None:
        """Raise `MissingExtraError` without TensorRT, `EngineError` without a card."""
        if self.capabilities:
            raise UsageError("TensorRT builds for the card that is there; leave the capability out")
        self.check_rows()
        library(self.name)
        with requires(self.name):
            self.capabilities = (Card().capability(),)

    def plan(self) -> Plan:
        """What the builder is asked for; measured times are kept in the user's cache."""
        (capability,) = self.capabilities
        return Plan(
            self.name,
            self.rows,
            tf32=self.precision != "float32",
            timing_cache=cache_folder(self.name) / f"{capability}.timing",
            weight_streaming=self.weight_streaming,
            plugin=capability if self.plugin else None,
        )

    @property
    def apart(self) -> bool:
        """The CPU has no plugin."""
        return self.plugin or super().apart

    def rewrite(self, path: Path) -> None:
        """Put the plugin in place of the function, if it is wanted."""
        if self.plugin:
            ir.save(use_plugin(ir.load(path)), path)
