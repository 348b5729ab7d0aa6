"""Which samples are for training and which for validation."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from .records import KeptSample

__all__ = ["split"]

#: Share of the source images whose samples are for validation.
_VAL_SHARE = 0.2


def split(entries: Sequence[KeptSample]) -> dict[str, list[KeptSample]]:
    """Samples for training and validation; all samples of one source are on the same side.

    A fifth of the sources, chosen by the hashes of their names; at least one of two.
    """
    sources = sorted(
        {entry.source for entry in entries},
        key=lambda source: hashlib.sha256(source.encode()).digest(),
    )
    count = max(1, round(_VAL_SHARE * len(sources))) if len(sources) > 1 else 0
    val = set(sources[:count])
    return {
        "train": [entry for entry in entries if entry.source not in val],
        "val": [entry for entry in entries if entry.source in val],
    }
