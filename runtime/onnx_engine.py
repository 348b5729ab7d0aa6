"""The ONNX backend: three graphs on one execution provider of ONNX Runtime."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .binding import BoundSession
from .engine import cores
from .errors import EngineError, UsageError
from .manifest import Manifest
from .providers import open_session, require
from .rows import Floats, Rows
from .signature import check, signatures

__all__ = ["OnnxEngine"]


class OnnxEngine:
    """An engine directory opened with ONNX Runtime; see `defectrt.engine.Engine`."""

    def __init__(
        self,
        directory: Path,
        manifest: Manifest,
        *,
        threads: int | None = None,
        calls: int = 1,
        provider: str = "cpu",
    ) -> None:
        """Open graphs that `verify` has already checked.

        ``calls`` calls may run at once and share the threads. On a CPU a call of one thread each
        does more in all than one call of many. ``provider`` is one of
        `defectrt.providers.PROVIDERS`; it takes every graph whole or it is an `EngineError`.
        """
        if threads is not None and threads < 1:
            raise UsageError(f"{threads} threads; give 1 or more, or none for all cores")
        if calls < 1:
            raise UsageError(f"{calls} calls at once; give 1 or more")
        chosen = require(provider)
        self.manifest, self.calls, self.provider = manifest, calls, provider
        graphs = signatures(manifest)
        missing = [f"{name}.onnx" for name in graphs if f"{name}.onnx" not in manifest.files]
        if missing:
            raise EngineError(f"{directory}: the manifest lists no {', no '.join(missing)}")
        each = max(1, (threads or cores()) // calls)
        self._outputs = {name: list(graph.outputs) for name, graph in graphs.items()}
        self._sessions: dict[str, Any] = {}
        for name, graph in graphs.items():
            session = open_session(directory / f"{name}.onnx", chosen, graph, each)
            device = chosen.device
            self._sessions[name] = BoundSession(session, graph, device) if device else session

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

    def close(self) -> None:
        """Free the graphs."""
        self._sessions.clear()

    def __enter__(self) -> Self:
        """Close at the end of the block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()

    def _run(self, graph: str, feeds: dict[str, Any]) -> list[Floats]:
        if graph not in self._sessions:
            raise EngineError("the engine is closed")
        check(self.manifest, graph, feeds)
        try:
            results: list[Floats] = self._sessions[graph].run(self._outputs[graph], feeds)
        except Exception as error:  # ONNX Runtime's own errors share no narrower base
            raise EngineError(f"{graph}: ONNX Runtime failed: {error}") from error
        return results
