"""The ONNX backend: three graphs on one execution provider of ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from typing import Any

import onnxruntime as ort

from ..cores import cores
from ..diffusion.rows import Floats
from ..errors import EngineError
from .binding import BoundSession
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
        does more in all than one call of many; a device takes one at a time, since others would
        only wait for it with batches that are not full. ``provider`` is one of
        `providers.PROVIDERS`; it takes every graph whole or it is an `EngineError`.
        """
        super().__init__(manifest, threads, calls)
        chosen = require(provider)
        self.provider, self.calls = provider, 1 if chosen.device else calls
        each = max(1, (threads or cores()) // self.calls)
        self._running, self._lock = set[ort.RunOptions](), Lock()
        self._outputs = {name: list(graph.outputs) for name, graph in self._signatures.items()}
        for name, path in self._files(directory, "onnx").items():
            graph, device = self._signatures[name], chosen.device
            session = open_session(path, chosen, graph, each, manifest.precision)
            self._graphs[name] = BoundSession(session, graph, device) if device else session

    def stop(self) -> None:
        """End the calls that are under way, after the operator that each is at."""
        with self._lock:
            for options in self._running:
                options.terminate = True

    def _compute(self, name: str, feeds: dict[str, Any]) -> list[Floats]:
        options = ort.RunOptions()
        options.log_severity_level = 4  # errors are raised
        with self._lock:
            self._running.add(options)
        try:
            results: list[Floats] = self._graphs[name].run(self._outputs[name], feeds, options)
        except Exception as error:  # ONNX Runtime's own errors share no narrower base
            raise EngineError(f"{name}: ONNX Runtime failed: {error}") from error
        finally:
            with self._lock:
                self._running.discard(options)
        return results
