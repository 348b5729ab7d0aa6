"""What the backends share: an engine is three graphs that are opened, fed and closed alike."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..closing import Closing
from ..diffusion.rows import Floats, Rows
from ..errors import EngineError, UsageError
from .manifest import Manifest
from .signature import check, check_outputs, signatures

__all__ = ["GraphEngine"]


class GraphEngine(Closing):
    """See `engine.Engine`; a backend opens its graphs and computes one at a time."""

    provider: str
    calls: int

    def __init__(self, manifest: Manifest, threads: int | None, calls: int) -> None:
        """Raise `UsageError` for numbers that cannot be; nothing is opened yet."""
        if threads is not None and threads < 1:
            raise UsageError(f"{threads} threads; give 1 or more, or none for all cores")
        if calls < 1:
            raise UsageError(f"{calls} calls at once; give 1 or more")
        self.manifest, self.calls = manifest, calls
        self._signatures = signatures(manifest)
        self._graphs: dict[str, Any] = {}

    def encode(self, pixels: Floats) -> Floats:
        """pixels [B,3,H,W] float32 in [-1,1] -> scaled latents [B,C,h,w]."""
        return self._run("encoder", {"pixels": pixels})[0]

    def decode(self, latent: Floats) -> Floats:
        """Scaled latents [B,C,h,w] -> pixels [B,3,H,W], about [-1,1]."""
        return self._run("decoder", {"latent": latent})[0]

    def step(self, rows: Rows) -> tuple[Floats, Floats]:
        """One row step: (z' [B,C,h,w], attention [B,1,r,r])."""
        feeds = {f.name: getattr(rows, f.name) for f in fields(rows)}
        latent, attention = self._run("denoiser", feeds)
        return latent, attention

    def stop(self) -> None:
        """Nothing can be ended, unless a backend knows how to."""

    def close(self) -> None:
        """Free the graphs."""
        self._graphs.clear()

    @abstractmethod
    def _compute(self, name: str, feeds: dict[str, Any]) -> list[Floats]:
        """The outputs of a graph that is open, for inputs that were checked."""

    def _run(self, name: str, feeds: dict[str, Any]) -> list[Floats]:
        if name not in self._graphs:
            raise EngineError("the engine is closed")
        signature = self._signatures[name]
        check(self.manifest, signature, feeds)
        outputs = self._compute(name, feeds)
        check_outputs(name, signature, len(next(iter(feeds.values()))), outputs)
        return outputs

    def _files(self, directory: Path, suffix: str) -> dict[str, Path]:
        """The file of every graph by the graph's name, all of which the manifest has to list."""
        files = {name: directory / f"{name}.{suffix}" for name in self._signatures}
        missing = [path.name for path in files.values() if path.name not in self.manifest.files]
        if missing:
            raise EngineError(f"{directory}: the manifest lists no {', no '.join(missing)}")
        return files
