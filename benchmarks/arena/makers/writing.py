"""How a maker writes what it made, and what several makers draw alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defectrt.errors import InputError
from defectrt.images.types import Bits, Mask
from defectrt.training.data.samples import Sample

from ..folds import write_samples

__all__ = ["ANY", "by_type", "eight_bits", "make_each", "types_of"]

#: The type of what is like no type of the shots.
ANY = "anomaly"
#: Tries for a picture whose defect fits.
_TRIES = 200

Drawn = Callable[[np.random.Generator], tuple[Sample, Bits, Mask] | None]


def types_of(shots: Sequence[Sample]) -> list[str]:
    """The types that are shown, by name; raises `InputError` if there are none."""
    found = sorted({s.defect_type for s in shots if s.mask.any()})
    if not found:
        raise InputError("the shots show no defect; each needs a mask")
    return found


def by_type(shots: Sequence[Sample]) -> dict[str, list[Sample]]:
    """The shots of each type."""
    return {name: [s for s in shots if s.defect_type == name] for name in types_of(shots)}


def make_each(out: Path, defect_type: str, count: int, seed: Sequence[int], draw: Drawn) -> None:
    """Write ``count`` pictures of a type; ``draw`` gives the good picture, the made one, the mask.

    Raises `InputError` if it hardly ever finds room for a defect.
    """
    made: list[Sample] = []
    for number in range(count):
        rng = np.random.default_rng([*seed, number])
        for _ in range(_TRIES):
            if (drawn := draw(rng)) is not None and drawn[2].any():
                onto, image, mask = drawn
                name = Path(f"{onto.path.stem}_{number:03d}.png")
                made.append(Sample(name, defect_type, image, mask))
                break
    if not made:
        raise InputError(f"{defect_type}: no defect fits any good picture; give larger ones")
    write_samples(made, out / defect_type)


def eight_bits(image: Any) -> NDArray[np.uint8]:
    """[H,W,3] of 8 bits."""
    array: Any = np.ascontiguousarray(image)
    return array if array.dtype == np.uint8 else (array >> 8).astype(np.uint8)
