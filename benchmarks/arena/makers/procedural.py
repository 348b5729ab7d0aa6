"""The package ``defect-synthesis`` of the package index, as it is, with its own defaults."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from defectrt.errors import InputError, UsageError
from defectrt.training.data.samples import Sample

from ..outside import reached
from .writing import eight_bits, make_each, types_of

__all__ = ["make"]

#: A type of defect -> its generator.
_GENERATORS = {
    "crack": "CrackGenerator",
    "scratch": "ScratchGenerator",
    "stain": "StainGenerator",
    "pit": "PittingGenerator",
    "burn": "BurnGenerator",
    "warp": "TextureWarpGenerator",
}


def make(
    shots: Sequence[Sample],
    good: Sequence[Sample],
    count: int,
    seed: int,
    out: Path,
    *,
    types: Mapping[str, str],
) -> None:
    """Write what the package draws; ``types`` says which of its defects each type of the shots is.

    It is written for OpenCV's order of colours, and draws from NumPy's and Python's global state.
    """
    reached("defect_synthesis")
    package = import_module("defect_synthesis")
    if not good:
        raise InputError("defect-synthesis: needs good pictures")
    for place, name in enumerate(types_of(shots)):
        kind = types.get(name, "")
        if kind not in _GENERATORS:
            raise UsageError(f"types: {name}: {kind!r} is none of {', '.join(_GENERATORS)}")
        generator = getattr(package, _GENERATORS[kind])()

        def draw(rng: np.random.Generator, generator: Any = generator) -> Any:
            onto = good[rng.integers(len(good))]
            number = int(rng.integers(2**32))
            np.random.seed(number)  # noqa: NPY002
            random.seed(number)
            found = generator.apply(np.ascontiguousarray(eight_bits(onto.image)[..., ::-1]))
            return onto, np.ascontiguousarray(found.image[..., ::-1]), found.anomaly_mask > 0

        make_each(out, name, count, [seed, place], draw)
