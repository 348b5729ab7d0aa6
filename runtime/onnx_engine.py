"""The ONNX backend: three graphs on one ONNX Runtime execution provider."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import onnxruntime as ort
from numpy.typing import DTypeLike

from .engine import cores
from .errors import EngineError, InputError, UsageError
from .manifest import Manifest
from .rows import Floats, Rows

__all__ = ["OnnxEngine"]

#: A graph's inputs and outputs by name: element type and shape, "B" for the batch.
_Signature = dict[str, tuple[str, tuple[int | str, ...]]]
_NUMPY: dict[str, DTypeLike] = {"tensor(float)": np.float32, "tensor(int64)": np.int64}


class OnnxEngine:
    """An engine directory opened with ONNX Runtime; see `defectrt.engine.Engine`."""

    def __init__(
        self,
        directory: Path,
        manifest: Manifest,
        *,
        threads: int | None = None,
        calls: int = 1,
        providers: Sequence[str] = ("CPUExecutionProvider",),
    ) -> None:
        """Open graphs that `verify` has already checked.

        ``calls`` calls may run at once and share the threads. On a CPU a call of one thread each
        does more in all than one call of many. providers are ONNX Runtime's, in order of
        preference. They are all there or it is an `EngineError`, and only a list that names the
        CPU may fall back to it.
        """
        options = _options(threads, calls, providers)
        self.manifest, self.calls = manifest, calls
        self._signatures = _signatures(manifest)
        missing = [f"{n}.onnx" for n in self._signatures if f"{n}.onnx" not in manifest.files]
        if missing:
            raise EngineError(f"{directory}: the manifest lists no {', no '.join(missing)}")
        self._sessions = {
            name: _open(directory / f"{name}.onnx", inputs, outputs, options, providers)
            for name, (inputs, outputs) in self._signatures.items()
        }

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

    def _run(self, graph: str, feeds: dict[str, np.ndarray]) -> list[Floats]:
        if graph not in self._sessions:
            raise EngineError("the engine is closed")
        inputs, outputs = self._signatures[graph]
        faults = _faults(inputs, feeds) or _range_faults(self.manifest, feeds)
        if faults:
            raise InputError("; ".join(faults))
        try:
            results: list[Floats] = self._sessions[graph].run(list(outputs), feeds)
        except Exception as error:  # ONNX Runtime's own errors share no narrower base
            raise EngineError(f"{graph}: ONNX Runtime failed: {error}") from error
        return results


def _signatures(manifest: Manifest) -> dict[str, tuple[_Signature, _Signature]]:
    """Inputs and outputs of every graph, as the manifest has it."""
    image, latent = (
        ("tensor(float)", ("B", size.channels, size.height, size.width))
        for size in (manifest.image, manifest.latent)
    )
    plane = ("tensor(float)", ("B", 1, manifest.latent.height, manifest.latent.width))
    maps = ("tensor(float)", ("B", 1, manifest.attention.height, manifest.attention.width))
    scalar, index = ("tensor(float)", ("B",)), ("tensor(int64)", ("B",))
    rows: _Signature = {
        "latent": latent,
        "timestep": index,
        "mask": plane,
        "inside": index,
        "outside": index,
        "a": scalar,
        "b": scalar,
        "region": plane,
        "anchor": latent,
    }
    return {
        "encoder": ({"pixels": image}, {"latent": latent}),
        "denoiser": (rows, {"next_latent": latent, "attention": maps}),
        "decoder": ({"latent": latent}, {"pixels": image}),
    }


def _options(threads: int | None, calls: int, providers: Sequence[str]) -> ort.SessionOptions:
    if threads is not None and threads < 1:
        raise UsageError(f"{threads} threads; give 1 or more, or none for all cores")
    if calls < 1:
        raise UsageError(f"{calls} calls at once; give 1 or more")
    available = ort.get_available_providers()
    if missing := [name for name in providers if name not in available]:
        raise EngineError(
            f"this ONNX Runtime has no {', no '.join(missing)}; it has: {', '.join(available)}"
        )
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = max(1, (threads or cores()) // calls)
    if "CPUExecutionProvider" not in providers:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    return options


def _open(
    path: Path,
    inputs: _Signature,
    outputs: _Signature,
    options: ort.SessionOptions,
    providers: Sequence[str],
) -> ort.InferenceSession:
    try:
        session = ort.InferenceSession(str(path), sess_options=options, providers=list(providers))
        session.disable_fallback()
    except Exception as error:  # ONNX Runtime's own errors share no narrower base
        raise EngineError(f"{path}: ONNX Runtime cannot open the graph: {error}") from error
    if lost := [name for name in providers if name not in session.get_providers()]:
        raise EngineError(f"{path}: ONNX Runtime could not start {', '.join(lost)}")
    faults = [
        f"{kind} {name}: {found}, the manifest says {wanted}"
        for kind, nodes, signature in (
            ("input", session.get_inputs(), inputs),
            ("output", session.get_outputs(), outputs),
        )
        for name, found, wanted in _differences(nodes, signature)
    ]
    if faults:
        raise EngineError(f"{path}: not the graph of this manifest: " + "; ".join(faults))
    return session


def _differences(nodes: list[ort.NodeArg], wanted: _Signature) -> list[tuple[str, str, str]]:
    found = {
        # ONNX Runtime names a dimension that is free, or gives None; a number is fixed
        n.name: (n.type, tuple(s if isinstance(s, int) else "B" for s in n.shape))
        for n in nodes
    }
    return [
        (name, str(found.get(name, "missing")), str(wanted.get(name, "nothing")))
        for name in sorted(found.keys() | wanted.keys())
        if found.get(name) != wanted.get(name)
    ]


def _faults(signature: _Signature, feeds: dict[str, np.ndarray]) -> list[str]:
    """What is wrong with types and shapes."""
    batch = next((len(x) for x in feeds.values() if isinstance(x, np.ndarray) and x.ndim), 0)
    faults = [] if batch else ["the batch is empty"]
    for name, (kind, shape) in signature.items():
        expected = f"{np.dtype(_NUMPY[kind])} {[batch if s == 'B' else s for s in shape]}"
        if (given := _describe(feeds[name])) != expected:
            faults.append(f"{name} is {given}, expected {expected}")
    return faults


def _describe(array: np.ndarray) -> str:
    if not isinstance(array, np.ndarray):
        return f"a {type(array).__name__}"
    return f"{array.dtype} {list(array.shape)}"


def _range_faults(manifest: Manifest, feeds: dict[str, np.ndarray]) -> list[str]:
    """Indices past a table would read what is not there; a soft mask would be taken as binary."""
    prompts, times = len(manifest.prompts), manifest.schedule.train_timesteps
    limits = {"inside": prompts, "outside": prompts, "timestep": times}
    faults = [
        f"{name} goes outside 0 … {limits[name] - 1}"
        for name, values in feeds.items()
        if name in limits and not 0 <= values.min() <= values.max() < limits[name]
    ]
    if "mask" in feeds and not np.isin(feeds["mask"], (0, 1)).all():
        faults.append("mask holds other values than 0 and 1")
    return faults
