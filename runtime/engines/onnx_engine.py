"""The ONNX backend: three graphs on one execution provider of ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..diffusion.rows import Floats
from ..errors import EngineError
from .binding import BoundSession
from .engine import cores
from .graph_engine import GraphEngine
from .manifest import Manifest
from .providers import open_session, require

__all__ = ["OnnxEngine"]


class OnnxEngine(GraphEngine):
    """An engine directory opened with ONNX Runtime, see `engine.Engine`."""

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
        does more in all than one call of many. ``provider`` is one of `providers.PROVIDERS`; it
        takes every graph whole or it is an `EngineError`.
        """
        super().__init__(manifest, threads, calls)
        chosen = require(provider)
        self.provider = provider
        each = max(1, (threads or cores()) // calls)
        self._outputs = {name: list(graph.outputs) for name, graph in self._signatures.items()}
        for name, path in self._files(directory, "onnx").items():
            graph, device = self._signatures[name], chosen.device
            session = open_session(path, chosen, graph, each, manifest.precision)
            self._graphs[name] = BoundSession(session, graph, device) if device else session

    def _compute(self, name: str, feeds: dict[str, Any]) -> list[Floats]:
        try:
            results: list[Floats] = self._graphs[name].run(self._outputs[name], feeds)
        except Exception as error:  # ONNX Runtime's own errors share no narrower base
            raise EngineError(f"{name}: ONNX Runtime failed: {error}") from error
        return results
