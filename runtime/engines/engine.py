"""One interface to every backend."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self

from ..diffusion.rows import Floats, Rows
from .manifest import Manifest

__all__ = ["Engine"]


class Engine(Protocol):
    """What a host can do with an engine; it does no arithmetic on latents itself.

    Every call raises `InputError` for an array of the wrong type or shape, naming it, and
    `EngineError` if what a graph gives is not what the manifest says, or not finite.
    """

    @property
    def manifest(self) -> Manifest:
        """The verified manifest."""

    @property
    def provider(self) -> str:
        """What computes: a provider's name for ONNX, else the device it was built for."""

    @property
    def calls(self) -> int:
        """How many calls may run at once, each in a thread of its own; 1 if not thread-safe."""

    def encode(self, pixels: Floats) -> Floats:
        """pixels [B,3,H,W] float32 in [-1,1] -> scaled latents [B,C,h,w] float32."""

    def decode(self, latent: Floats) -> Floats:
        """Scaled latents [B,C,h,w] float32 -> pixels [B,3,H,W] float32, about [-1,1]."""

    def step(self, rows: Rows) -> tuple[Floats, Floats]:
        """One row step: (z' [B,C,h,w], attention [B,1,r,r] in [0,1]), both float32."""

    def stop(self) -> None:
        """From any thread: end the calls that are under way, if possible, with `EngineError`."""

    def close(self) -> None:
        """Free everything; the engine cannot be used afterwards."""

    def __enter__(self) -> Self:
        """Close at the end of the block."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
