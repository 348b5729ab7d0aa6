"""Open an engine directory with the backend that its manifest names."""

from __future__ import annotations

from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from ..config.engine import BATCH_SIZE, CARD_BATCH_SIZE, EngineConfig
from ..cores import threads_of
from ..errors import EngineError, UsageError
from ..extras import requires
from .engine import Engine
from .manifest import Manifest, verify
from .trust import require_trust

__all__ = ["BUNDLED_ENGINE", "batch_size_of", "load_engine", "open_engine"]

#: The engine that ships with the package.
BUNDLED_ENGINE = Path(__file__).parent / "bundled"


class _Backend(NamedTuple):
    """Where a backend is: its module here, its class, and the extra that brings its packages.

    The class is called like `defectrt.engines.onnx_engine.OnnxEngine`, ``provider`` apart.
    """

    module: str
    name: str
    extra: str = ""


#: What an engine's ``provider`` is where it computes on the CPU.
_ON_CPU = ("cpu", "openvino")
#: By their names in the manifest. A module is imported when one of its engines is opened.
_BACKENDS = {
    "onnx": _Backend("onnx_engine", "OnnxEngine"),
    "tensorrt": _Backend("tensorrt_engine", "TensorRTEngine", "tensorrt"),
    "tensorrt-rtx": _Backend("tensorrt_engine", "TensorRTEngine", "tensorrt-rtx"),
    "aoti": _Backend("aoti_engine", "AotiEngine", extra="gpu"),
}


def load_engine(
    directory: str | Path,
    *,
    threads: int | None = None,
    calls: int = 1,
    provider: str | None = None,
    trust: str | None = None,
) -> Engine:
    """Verify an engine directory, then open it.

    threads limits the CPU threads of the engine; by default it takes all `cores`. They are shared
    among ``calls`` calls at once, where the backend can do more than one. ``provider`` is what
    an ONNX engine runs on, one of `providers.PROVIDERS`, by default the CPU; "auto" tries all
    that are installed and takes the fastest. All other engines are machine code and are opened
    only if their `Manifest.fingerprint` is in ``trust``.
    Raises `EngineError` if anything about the directory is not as its manifest says, or if this
    machine cannot run it; `MissingExtraError` if packages of the backend are missing.
    """
    path = Path(directory)
    manifest = verify(path)
    if manifest.backend not in _BACKENDS:
        raise EngineError(f"{path}: this build does not run the backend {manifest.backend!r}")
    options: dict[str, str] = {}
    if manifest.backend == "onnx":
        options["provider"] = provider or "cpu"
        if provider == "auto":
            options["provider"] = _fastest(path, manifest, threads)
    elif provider not in (None, "auto"):
        raise UsageError(
            f"{path}: an engine of the backend {manifest.backend!r} runs on what it was built "
            "for; a provider is chosen for ONNX engines only"
        )
    else:
        require_trust(path, manifest, trust)
    backend = _BACKENDS[manifest.backend]
    with requires(backend.extra) if backend.extra else nullcontext():
        module = import_module(f".{backend.module}", __package__)
        engine: Engine = getattr(module, backend.name)(
            path, manifest, threads=threads, calls=calls, **options
        )
    return engine


def open_engine(config: EngineConfig, tries: int) -> Engine:
    """The engine of a configuration, by default the bundled one; see `load_engine`.

    ``tries`` are the candidates that will be made: as many calls run at once as they fill.
    """
    threads = threads_of(config.threads)
    return load_engine(
        config.engine or BUNDLED_ENGINE,
        threads=threads,
        calls=max(1, min(threads, tries // (config.batch_size or BATCH_SIZE))),
        provider=config.provider,
        trust=config.trust,
    )


def batch_size_of(config: EngineConfig, engine: Engine) -> int:
    """Rows at once in this engine: the configuration's, or what suits what it runs on."""
    return config.batch_size or (BATCH_SIZE if engine.provider in _ON_CPU else CARD_BATCH_SIZE)


def _fastest(path: Path, manifest: Manifest, threads: int | None) -> str:
    from .providers import installed
    from .trials import choose, try_providers

    names = installed()
    if len(names) == 1:
        return names[0]
    return choose(list(try_providers(path, manifest, threads=threads))).provider
