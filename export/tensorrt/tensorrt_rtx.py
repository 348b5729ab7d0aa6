"""The backend tensorrt-rtx: plans for RTX cards, built ahead of time on a machine without one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from defectrt.engines.tensorrt_engine import CARDS, library
from defectrt.errors import UsageError

from .builder import Plan
from .plans import Plans

__all__ = ["TensorRTRTX"]

_TURING = 75


@dataclass
class TensorRTRTX(Plans):
    """See `Plans`; ``capabilities`` are chosen, and one plan serves all of them."""

    name: ClassVar = "tensorrt-rtx"

    def check(self) -> None:
        """Raise `UsageError` for a card or precision that cannot be, or without TensorRT-RTX."""
        if not self.capabilities:
            raise UsageError(f"say for which cards: --compute-capability, one of {_listed()}")
        if unknown := [c for c in self.capabilities if c not in CARDS]:
            raise UsageError(
                f"TensorRT-RTX builds nothing for compute capability {', '.join(map(str, unknown))}"
                f"; it does for {_listed()}. For others, 90 (H100, H200) among them, use "
                "--backend aoti, or --backend tensorrt on a machine that has the card"
            )
        if len(set(self.capabilities)) < len(self.capabilities):
            raise UsageError("a compute capability is given twice")
        if _TURING in self.capabilities and self.precision != "float16":
            raise UsageError(
                "TensorRT-RTX has no float32 or bfloat16 products for compute capability 75; use "
                "--precision float16, or leave 75 out"
            )
        self.check_rows()
        library(self.name)

    @property
    def narrow_autoencoder(self) -> bool:
        """For Turing, which has float16 products only."""
        return _TURING in self.capabilities

    def plan(self) -> Plan:
        """What the builder is asked for."""
        exact = self.precision == "float32"
        return Plan(self.name, self.rows, capabilities=self.capabilities, tf32=not exact)


def _listed() -> str:
    return "; ".join(f"{capability} ({cards})" for capability, cards in CARDS.items())
