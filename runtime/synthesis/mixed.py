"""Defects of several types in one image, each with its own masks and places."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..config.names import COMBINED
from ..diffusion.seeds import sample_seed
from ..images.types import Bits
from ..masks.source import Placed
from ..masks.sources import PlacedMasks, place_all
from .turns import turn

__all__ = ["Mixed", "type_of_all"]

#: Defects in one image, unless a number is asked for.
_INSTANCES = (2, 2)


def type_of_all(defect_types: Iterable[str]) -> str:
    """The type of a sample with defects of these types: the one that they have, or `COMBINED`."""
    first, *others = dict.fromkeys(defect_types)
    return COMBINED if others else first


class Mixed:
    """Where the defects of samples come, and of which types they are; see `MaskSource`.

    A sample's defects take their types from a turn (see `defectrt.synthesis.turns`), one after
    another from a place on that is drawn, so that over all samples each type has its share of the
    defects.
    """

    def __init__(
        self,
        sources: Mapping[str, PlacedMasks],
        shares: Mapping[str, int],
        instances: tuple[int, int] | None,
        seed: int,
    ) -> None:
        """``sources`` are those of each type, ``shares`` how often it comes."""
        self._sources, self._shares, self._turn = sources, shares, turn(shares)
        self._instances, self._seed = instances or _INSTANCES, sample_seed(seed, COMBINED, 0)

    def defects(self, source: str, number: int) -> Sequence[str]:
        """The types of a sample's defects, of its image's name and its number alone."""
        return self._drawn(source, number)[0]

    def __call__(self, source: str, image: Bits, sample: int) -> list[Placed]:
        """All defects, none over another; those that the sample's type depends on at least.

        Raises `InputError` if one of these fits nowhere.
        """
        types, seed, rng = self._drawn(source, sample)
        others = [i for i, name in enumerate(types) if name != types[0]]
        least = max(self._instances[0], others[0] + 1 if others else 1)
        wanted = [self._sources[name] for name in types]
        return place_all(wanted, source, image, seed, rng, least=least)

    def record(self) -> dict[str, Any]:
        """The masks, and what is mixed; the seed is the job's."""
        masks = next(iter(self._sources.values())).record()
        return masks | {"instances": self._instances, "mixed": self._shares}

    def _drawn(self, source: str, number: int) -> tuple[Sequence[str], int, np.random.Generator]:
        """The types, and the generator of what else is random, with its seed."""
        seed = sample_seed(self._seed, source, number)
        rng = np.random.default_rng(seed)
        low, high = self._instances
        start, count = int(rng.integers(len(self._turn))), int(rng.integers(low, high + 1))
        return [self._turn[(start + i) % len(self._turn)] for i in range(count)], seed, rng
