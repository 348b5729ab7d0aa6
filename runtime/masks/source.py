"""What a source of masks is: where in an image its samples get a defect."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from ..images.types import Bits, Mask

__all__ = ["MaskSource", "Placed", "digest"]


@dataclass(frozen=True)
class Placed:
    """One instance of a sample: its mask [H,W], not empty, and how it came about.

    The record goes into the sample's line of the manifest and is enough to make the mask again:
    ``from`` names the kind of source, the rest depends on it (file and hash, or seed, …).
    ``defect`` is its type of defect; without one it is of the type that the sample was asked for.
    ``strength`` is the one wanted, if somebody says so; see `defectrt.synthesis.strength`.
    """

    mask: Mask
    record: dict[str, Any]
    defect: str | None = None
    strength: float | None = None


class MaskSource(Protocol):
    """Where masks come from: a pure function of its settings, an image and a sample's number."""

    def __call__(self, source: str, image: Bits, sample: int) -> list[Placed]:
        """The instances of one sample, at least one; each is a defect of its own in the image.

        ``source`` is the image's path under its folder, posix; ``image`` is [H,W,C]. Raises
        `InputError`, with the reason, if this image cannot have a mask and is to be skipped.
        """

    def record(self) -> dict[str, Any]:
        """What decides the masks, as plain JSON, for the job's record."""


def digest(names: Iterable[str]) -> str:
    """Changes with any of the names or their order."""
    names = list(names)
    data = "\n".join(names).encode(errors="surrogateescape")
    return f"{len(names)}, sha256 {hashlib.sha256(data).hexdigest()[:16]}"
