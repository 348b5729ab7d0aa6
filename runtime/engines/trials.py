"""Every provider tried for real on an engine: does it open, does it compute the same, how fast.

What ``--provider auto`` takes and `defectrt doctor` recommends is decided here, by one rule.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np

from ..diffusion.rows import Rows
from ..errors import DefectRTError, EngineError
from .manifest import TOLERANCES, Manifest
from .onnx_engine import OnnxEngine
from .providers import installed

__all__ = ["Trial", "choose", "draw_rows", "try_providers"]

#: Rows in a batch, as a job has them by default, and batches that are timed after the first.
_BATCH, _REPEATS = 4, 5
#: How much faster than the CPU a provider has to be, so that chance does not choose.
_MARGIN = 1.15


@dataclass(frozen=True)
class Trial:
    """How a provider did.

    provider  its name
    rate      rows of the denoiser a second, the median
    start     seconds until the engine was open
    error     largest difference to the CPU, relative to the largest value
    fault     why it cannot be used, if so
    """

    provider: str
    rate: float = 0.0
    start: float = 0.0
    error: float = 0.0
    fault: str = ""


def try_providers(
    directory: Path, manifest: Manifest, *, threads: int | None = None
) -> Iterator[Trial]:
    """Try all installed providers on a verified ONNX engine, the CPU first; raises nothing."""
    rows, expected = draw_rows(manifest, _BATCH), None
    for name in installed():
        try:
            start = perf_counter()
            with OnnxEngine(directory, manifest, threads=threads, provider=name) as engine:
                opened = perf_counter() - start
                latent, _ = engine.step(rows)
                expected = latent if expected is None else expected
                error = float(np.abs(latent - expected).max() / np.abs(expected).max())
                if not error <= TOLERANCES[manifest.precision]:
                    raise EngineError(f"{name} is {error:.1g} off the CPU")
                rate = _BATCH / median(_seconds(engine, rows) for _ in range(_REPEATS))
            yield Trial(name, rate, opened, error)
        except DefectRTError as error:
            yield Trial(name, fault=str(error))


def choose(trials: Sequence[Trial]) -> Trial:
    """The fastest that works, and the CPU unless another is clearly faster.

    Raises `EngineError` if none works.
    """
    working = [trial for trial in trials if not trial.fault]
    if not working:
        faults = "; ".join(f"{trial.provider}: {trial.fault}" for trial in trials)
        raise EngineError(f"no provider runs this engine: {faults}")
    best = max(working, key=lambda trial: trial.rate)
    cpu = next((trial for trial in working if trial.provider == "cpu"), best)
    return best if best.rate > _MARGIN * cpu.rate else cpu


def draw_rows(manifest: Manifest, count: int) -> Rows:
    """Rows of a defect in a square, at the last step of the default schedule, drawn from a seed."""
    rng, size = np.random.default_rng(0), manifest.latent
    h, w = size.height, size.width
    mask = np.zeros((count, 1, h, w), np.float32)
    mask[..., h // 4 : -(-h // 2), w // 4 : -(-w // 2)] = 1
    z = rng.normal(size=(count, size.channels, h, w)).astype(np.float32)
    step, indices = (
        manifest.steps().generation[-1],
        manifest.prompt_indices(manifest.defect_types[0]),
    )
    ones = np.ones(count, np.float32)
    return Rows(
        latent=z,
        timestep=np.full(count, step.timestep),
        mask=mask,
        inside=np.full(count, indices.defect),
        outside=np.full(count, indices.background),
        a=ones * np.float32(step.a),
        b=ones * np.float32(step.b),
        region=mask,
        anchor=(1 - mask) * z,
    )


def _seconds(engine: OnnxEngine, rows: Rows) -> float:
    start = perf_counter()
    engine.step(rows)
    return perf_counter() - start
