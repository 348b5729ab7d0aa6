"""The backends tensorrt and tensorrt-rtx: three plans on one card, through the API they share.

Never run on hardware so far. What runs without a card is tested: the host's side of it on a
pretended one, and the refusals.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from platformdirs import user_cache_path

from ..diffusion.rows import Floats
from ..errors import EngineError, OutputError
from ..extras import requires
from ..files import write_whole
from .graph_engine import GraphEngine
from .manifest import Manifest
from .signature import Signature

if TYPE_CHECKING:
    import tensorrt

__all__ = ["CARDS", "SUFFIX", "Card", "TensorRTEngine", "cache_folder", "library"]

#: Compute capabilities that TensorRT-RTX builds for, with the cards that have them.
CARDS = {
    75: "GeForce RTX 20, Quadro RTX, T4",
    80: "A100, A30",
    86: "GeForce RTX 30, RTX A2000 to A6000, A10, A40",
    89: "GeForce RTX 40, RTX Ada, L4, L40",
    120: "GeForce RTX 50, RTX PRO Blackwell",
    121: "DGX Spark",
}
#: How the files of a backend end.
SUFFIX = {"tensorrt": "plan", "tensorrt-rtx": "engine"}


def library(backend: str) -> ModuleType:
    """The module of ``tensorrt`` or ``tensorrt-rtx``. Raises `MissingExtraError` without it."""
    with requires(backend):
        module = import_module({"tensorrt-rtx": "tensorrt_rtx_bindings"}.get(backend, backend))
        if not hasattr(module, "Builder"):  # the folder of a package of types alone
            raise ModuleNotFoundError("no module named 'tensorrt'", name="tensorrt")
    return module


class TensorRTEngine(GraphEngine):
    """An engine directory opened on the first card, see `engine.Engine`."""

    provider = "cuda"

    def __init__(
        self, directory: Path, manifest: Manifest, *, threads: int | None = None, calls: int = 1
    ) -> None:
        """Open plans that `verify` has already checked, and that the user trusts: they are code.

        Raises `EngineError` without a card, or if the plans are for other cards or another
        version.
        """
        super().__init__(manifest, threads, calls)
        self.calls = 1
        files = self._files(directory, SUFFIX[manifest.backend])
        trt = library(manifest.backend)
        self._cuda = Card()
        _require_card(directory, manifest, self._cuda.capability())
        self._log = _log(trt)
        self._runtime: tensorrt.Runtime = trt.Runtime(self._log)
        self._stream = self._cuda("StreamCreate")
        try:
            for name, path in files.items():
                self._graphs[name] = self._open(trt, path, self._signatures[name])
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Free the plans and their memory; what TensorRT-RTX compiled is kept for next time."""
        for graph in self._graphs.values():
            graph.close()
        super().close()
        if self._stream is not None:
            self._cuda("StreamDestroy", self._stream)
            self._stream = None

    def _open(self, trt: Any, path: Path, signature: Signature) -> _Graph:
        plan: tensorrt.ICudaEngine | None = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if plan is None:
            target = self.manifest.target
            made = ", ".join(f"{k} {v}" for k, v in target.runtime.items()) if target else "?"
            raise EngineError(
                f"{path}: TensorRT {trt.__version__} does not open the plan, which was made with "
                f"{made}: {self._log.last()}"
            )
        _require_signature(trt, path, plan, signature)
        if plan.streamable_weights_size:  # built for weights that stay in host memory
            plan.weight_streaming_budget_v2 = plan.get_weight_streaming_automatic_budget()
        digest = self.manifest.files[path.name].sha256
        cache = cache_folder(self.manifest.backend) / f"{digest}.cache"
        return _Graph(self._cuda, self._stream, self._log, plan, signature, cache)

    def _compute(self, name: str, feeds: dict[str, Any]) -> list[Floats]:
        graph: _Graph = self._graphs[name]
        count = len(next(iter(feeds.values())))
        parts = [
            graph.run({k: v[first : first + graph.most] for k, v in feeds.items()})
            for first in range(0, count, graph.most)
        ]
        return [np.concatenate(pieces) for pieces in zip(*parts, strict=True)]


class _Graph:
    """A plan with its context and, for its most rows, its buffers on the card."""

    def __init__(
        self,
        cuda: Card,
        stream: Any,
        log: Any,
        plan: tensorrt.ICudaEngine,
        signature: Signature,
        cache: Path,
    ) -> None:
        self._cuda, self._stream, self._log, self._signature = cuda, stream, log, signature
        self.most = int(plan.get_tensor_profile_shape(next(iter(signature.inputs)), 0)[2][0])
        config: Any = plan.create_runtime_config()
        self._cache, self._cached = None, cache
        if hasattr(config, "create_runtime_cache"):  # TensorRT-RTX compiles when it first runs
            self._cache = config.create_runtime_cache()
            if cache.is_file():
                self._cache.deserialize(cache.read_bytes())
            config.set_runtime_cache(self._cache)
        context: tensorrt.IExecutionContext | None = plan.create_execution_context(config)
        if context is None:
            raise EngineError(f"no room for the engine on the card: {log.last()}")
        self._plan, self._context = plan, context
        self._buffers: dict[str, int] = {}
        for name, array in (signature.inputs | signature.outputs).items():
            shape = [self.most if side == "B" else int(side) for side in array.shape]
            size = int(np.prod(shape)) * np.dtype(array.kind).itemsize
            self._buffers[name] = cuda("Malloc", size)
            context.set_tensor_address(name, self._buffers[name])

    def run(self, feeds: Mapping[str, np.ndarray[Any, Any]]) -> list[Floats]:
        """At most ``most`` rows; the arrays returned are the caller's own."""
        count = len(next(iter(feeds.values())))
        kept = {name: np.ascontiguousarray(values) for name, values in feeds.items()}
        for name, values in kept.items():
            self._context.set_input_shape(name, values.shape)
            self._cuda.upload(self._buffers[name], values, self._stream)
        if not self._context.execute_async_v3(int(self._stream)):
            raise EngineError(f"TensorRT failed: {self._log.last()}")
        results = []
        for name, (_, sides) in self._signature.outputs.items():
            result = np.empty([count if s == "B" else int(s) for s in sides], np.float32)
            self._cuda.download(result, self._buffers[name], self._stream)
            results.append(result)
        self._cuda("StreamSynchronize", self._stream)
        return results

    def close(self) -> None:
        for address in self._buffers.values():
            self._cuda("Free", address)
        self._buffers.clear()
        if self._cache is not None:
            _keep(self._cached, bytes(self._cache.serialize()))
            self._cache = None
        del self._context, self._plan


def _runtime() -> ModuleType:
    return import_module("cuda.bindings.runtime")


class Card:
    """The first NVIDIA card: the few calls of the CUDA runtime that are needed.

    An error of any is an `EngineError`.
    """

    def __init__(self) -> None:
        """Raise `EngineError` if there is none."""
        self._runtime: Any = _runtime()
        try:
            cards = self("GetDeviceCount")
        except EngineError as error:
            raise EngineError(
                f"this engine needs an NVIDIA card and its driver: {error}"
            ) from error
        if not cards:
            raise EngineError("this engine needs an NVIDIA card; there is none")

    def __call__(self, call: str, *args: Any) -> Any:
        """Call ``cuda<call>`` and return what it gives beside its status."""
        status, *values = getattr(self._runtime, f"cuda{call}")(*args)
        if status != self._runtime.cudaError_t.cudaSuccess:
            raise EngineError(f"CUDA: {call}: {getattr(status, 'name', status)}")
        return values[0] if values else None

    def capability(self) -> int:
        """Of the first card, as 89."""
        kind = self._runtime.cudaDeviceAttr
        major = self("DeviceGetAttribute", kind.cudaDevAttrComputeCapabilityMajor, 0)
        minor = self("DeviceGetAttribute", kind.cudaDevAttrComputeCapabilityMinor, 0)
        return 10 * int(major) + int(minor)

    def upload(self, address: int, array: np.ndarray[Any, Any], stream: Any) -> None:
        """Begin to copy a contiguous array to the card."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self("MemcpyAsync", address, array.ctypes.data, array.nbytes, kind, stream)

    def download(self, array: np.ndarray[Any, Any], address: int, stream: Any) -> None:
        """Begin to copy from the card into a contiguous array."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self("MemcpyAsync", array.ctypes.data, address, array.nbytes, kind, stream)


def _log(trt: Any) -> Any:
    """A logger that remembers its last error and prints nothing."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self._last = ""

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.Severity.ERROR:
                self._last = " ".join(message.split())[:500]

        def last(self) -> str:
            return self._last or "it does not say why"

    return Log()


def _require_card(directory: Path, manifest: Manifest, capability: int) -> None:
    wanted = manifest.target.capabilities if manifest.target else []
    if str(capability) not in wanted:
        raise EngineError(
            f"{directory}: the engine is for compute capability {', '.join(wanted) or 'none'}, the "
            f"card here has {capability}; build it with --compute-capability {capability}"
        )


def _require_signature(
    trt: Any, path: Path, plan: tensorrt.ICudaEngine, signature: Signature
) -> None:
    """A plan whose inputs and outputs are others would read and write past the buffers."""
    found = {}
    for name in (plan.get_tensor_name(i) for i in range(plan.num_io_tensors)):
        enters = plan.get_tensor_mode(name) == trt.TensorIOMode.INPUT
        kind = np.dtype(trt.nptype(plan.get_tensor_dtype(name)))
        found[name] = (enters, kind, tuple(plan.get_tensor_shape(name)))
    wanted = {
        name: (enters, np.dtype(kind), tuple(-1 if side == "B" else side for side in shape))
        for enters, arrays in ((True, signature.inputs), (False, signature.outputs))
        for name, (kind, shape) in arrays.items()
    }
    if found != wanted:
        faults = [n for n in sorted(found.keys() | wanted) if found.get(n) != wanted.get(n)]
        raise EngineError(f"{path}: not the plan of this manifest: {', '.join(faults)}")


def cache_folder(backend: str) -> Path:
    """Where the user keeps what a backend compiled or measured on this machine."""
    return user_cache_path("defectrt", appauthor=False) / backend


def _keep(path: Path, data: bytes) -> None:
    """Write a cache; without it the next start is slower, so that is only warned of."""
    try:
        write_whole(path, data)
    except OutputError as error:
        warnings.warn(f"compiled kernels are not kept: {error}", stacklevel=2)
