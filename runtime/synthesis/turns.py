"""Which type of defect a sample is of: the types take turns, each as often as its share says."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from math import gcd

from ..config.synthesis import Share
from ..errors import UsageError

__all__ = ["Turns", "shares_of", "turn", "type_of"]


def shares_of(wanted: Sequence[Share], defect_types: Sequence[str]) -> dict[str, int]:
    """The share of each type, in the engine's order and the smallest whole numbers.

    Nothing wanted is all types in equal parts. Raises `UsageError` for a type that the engine
    does not make.
    """
    shares = {share.defect_type: share.share for share in wanted} or dict.fromkeys(defect_types, 1)
    if unknown := sorted(shares.keys() - set(defect_types)):
        raise UsageError(
            f"no defect is named {', '.join(map(repr, unknown))}; this engine makes: "
            f"{', '.join(defect_types)}"
        )
    parts = gcd(*shares.values())
    return {name: shares[name] // parts for name in defect_types if name in shares}


def turn(shares: Mapping[str, int]) -> list[str]:
    """One turn: every type as often as its share, spread evenly by the largest remainder.

    Of the first n places of turns on end each type has its share to less than one place.
    """
    total, given, types = sum(shares.values()), Counter[str](), list[str]()
    for place in range(1, total + 1):
        types.append(max(shares, key=lambda name: shares[name] * place - total * given[name]))
        given[types[-1]] += 1
    return types


def type_of(types: Sequence[str], seed: int, source: str, number: int) -> str:
    """The type of one sample, of its seed, its image's name and its number alone.

    ``types`` is a `turn`, which every image enters at a place of its own; so shares are exact for
    the numbers of an image, and over images on average.
    """
    return types[(int.from_bytes(_key(seed, source)) + number) % len(types)]


class Turns:
    """The types of all samples of a job, by shares that are exact over the job.

    The images take their turns in an order that is drawn by the seed, so that types do not go
    with whatever the order of their names goes with.
    """

    def __init__(
        self, asked: Sequence[Mapping[str, int]], names: Sequence[str], seed: int, count: int
    ) -> None:
        """``asked`` are the shares of one or more runs, each for ``count`` samples an image.

        Runs that ask for the same type of the same sample share it.
        """
        self._turns = [turn(shares) for shares in asked]
        order = sorted(range(len(names)), key=lambda i: _key(seed, names[i]))
        self._starts = [0] * len(names)
        for rank, index in enumerate(order):
            self._starts[index] = rank * count
        self._count = count

    def of(self, index: int) -> Iterator[tuple[int, str]]:
        """Number and type of every sample of an image, by its place in ``names``."""
        start = self._starts[index]
        for number in range(self._count):
            for name in dict.fromkeys(t[(start + number) % len(t)] for t in self._turns):
                yield number, name


def _key(seed: int, source: str) -> bytes:
    """A number for an image, evenly spread; also of names that are no text."""
    return hashlib.sha256(f"{seed}/{source}".encode(errors="surrogateescape")).digest()
