"""What goes into the graphs of an engine and what comes out, whatever the backend.

Names, types and shapes are a contract: every backend checks its inputs and outputs here, so that
all refuse the same arrays with the same words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors import EngineError, InputError
from .manifest import Manifest

__all__ = ["Array", "Signature", "check", "check_outputs", "signatures"]


class Array(NamedTuple):
    """Type and shape of an input or output; "B" is the batch."""

    kind: type[np.float32] | type[np.int64]
    shape: tuple[int | str, ...]


class Signature(NamedTuple):
    """Inputs and outputs of a graph by name, in order."""

    inputs: dict[str, Array]
    outputs: dict[str, Array]


def signatures(manifest: Manifest) -> dict[str, Signature]:
    """The three graphs by name, as the manifest has them."""
    image, latent = (
        Array(np.float32, ("B", size.channels, size.height, size.width))
        for size in (manifest.image, manifest.latent)
    )
    plane = Array(np.float32, ("B", 1, manifest.latent.height, manifest.latent.width))
    maps = Array(np.float32, ("B", 1, manifest.attention.height, manifest.attention.width))
    scalar, index = Array(np.float32, ("B",)), Array(np.int64, ("B",))
    rows = {
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
        "encoder": Signature({"pixels": image}, {"latent": latent}),
        "denoiser": Signature(rows, {"next_latent": latent, "attention": maps}),
        "decoder": Signature({"latent": latent}, {"pixels": image}),
    }


def check(manifest: Manifest, graph: Signature, feeds: Mapping[str, Any]) -> None:
    """Raise `InputError` with all that is wrong with the inputs of a graph."""
    if faults := _faults(graph.inputs, feeds) or _range_faults(manifest, feeds):
        raise InputError("; ".join(faults))


def check_outputs(name: str, graph: Signature, rows: int, outputs: Sequence[Any]) -> None:
    """Raise `EngineError` with all that is wrong with what a graph gave for a batch of ``rows``."""
    given = dict(zip(graph.outputs, outputs, strict=False))
    faults = [f"no {missing}" for missing in list(graph.outputs)[len(outputs) :]]
    faults += _differences({key: graph.outputs[key] for key in given}, given, rows)
    if not faults:
        broken = [key for key, array in given.items() if not np.isfinite(array).all()]
        faults = [f"{key} has values that are not finite" for key in broken]
    if faults:
        raise EngineError(f"{name}: not what its manifest promises: {'; '.join(faults)}")


def _faults(inputs: Mapping[str, Array], feeds: Mapping[str, Any]) -> list[str]:
    """What is wrong with types and shapes."""
    batch = next((len(x) for x in feeds.values() if isinstance(x, np.ndarray) and x.ndim), 0)
    return ([] if batch else ["the batch is empty"]) + _differences(inputs, feeds, batch)


def _differences(wanted: Mapping[str, Array], given: Mapping[str, Any], batch: int) -> list[str]:
    """Where arrays are not of the type and shape that they should be."""
    faults = []
    for name, (kind, shape) in wanted.items():
        expected = f"{np.dtype(kind)} {[batch if s == 'B' else s for s in shape]}"
        if (found := _describe(given[name])) != expected:
            faults.append(f"{name} is {found}, expected {expected}")
    return faults


def _describe(array: Any) -> str:
    if not isinstance(array, np.ndarray):
        return f"a {type(array).__name__}"
    return f"{array.dtype} {list(array.shape)}"


def _range_faults(manifest: Manifest, feeds: Mapping[str, Any]) -> list[str]:
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
