"""The ONNX backend: three graphs on one ONNX Runtime execution provider."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import onnxruntime as ort
from numpy.typing import DTypeLike

from .errors import EngineError, InputError
from .manifest import Manifest
from .rows import Floats, Rows

__all__ = ["OnnxEngine"]

#: A graph's inputs and outputs by name: element type and shape, "B" for the batch.
_Signature = dict[str, tuple[str, tuple[int | str, ...]]]
_NUMPY: dict[str, DTypeLike] = {"tensor(float)": np.float32, "tensor(int64)": np.int64}


class OnnxEngine:
    """An engine directory opened with ONNX Runtime; see `defectrt.engine.Engine`."""

    def __init__(self, directory: Path, manifest: Manifest, *, threads: int | None = None) -> None:
        """Open graphs that `verify` has already checked."""
        self.manifest = manifest
        self._signatures = _signatures(manifest)
        missing = [f"{n}.onnx" for n in self._signatures if f"{n}.onnx" not in manifest.files]
        if missing:
            raise EngineError(f"{directory}: the manifest lists no {', no '.join(missing)}")
        self._sessions = {
            name: _open(directory / f"{name}.onnx", inputs, outputs, threads)
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
        self._check_indices(rows)
        latent, attention = self._run(
            "denoiser", {f.name: getattr(rows, f.name) for f in fields(rows)}
        )
        return latent, attention

    def _check_indices(self, rows: Rows) -> None:
        """Indices past a table would read what is not there."""
        prompts, times = len(self.manifest.prompts), self.manifest.schedule.train_timesteps
        for name, values, count in (
            ("prompt index", rows.inside, prompts),
            ("prompt index", rows.outside, prompts),
            ("timestep", rows.timestep, times),
        ):
            if values.size and not 0 <= values.min() <= values.max() < count:
                raise InputError(f"{name} outside 0 … {count - 1}")

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
        _check(self._signatures[graph][0], feeds)
        outputs: list[Floats] = self._sessions[graph].run(None, feeds)
        return outputs


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


def _open(
    path: Path, inputs: _Signature, outputs: _Signature, threads: int | None
) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if threads:
        options.intra_op_num_threads = threads
    try:
        session = ort.InferenceSession(
            str(path), sess_options=options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # ONNX Runtime's own errors share no narrower base
        raise EngineError(f"{path}: ONNX Runtime cannot open the graph: {error}") from error
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
        n.name: (n.type, tuple("B" if i == 0 else s for i, s in enumerate(n.shape))) for n in nodes
    }
    return [
        (name, str(found.get(name, "missing")), str(wanted.get(name, "nothing")))
        for name in sorted(found.keys() | wanted.keys())
        if found.get(name) != wanted.get(name)
    ]


def _check(signature: _Signature, feeds: dict[str, np.ndarray]) -> None:
    """Types and shapes of the feeds, all faults at once."""
    batch = len(next(iter(feeds.values())))
    faults = []
    for name, (kind, shape) in signature.items():
        expected = tuple(batch if s == "B" else s for s in shape)
        given = feeds[name]
        if given.dtype != _NUMPY[kind] or given.shape != expected:
            faults.append(
                f"{name} is {given.dtype} {list(given.shape)}, "
                f"expected {np.dtype(_NUMPY[kind])} {list(expected)}"
            )
    if not batch:
        faults.append("the batch is empty")
    if faults:
        raise InputError("; ".join(faults))
