"""The seed of a sample, from the job's seed, its image's name and its number."""

from __future__ import annotations

import hashlib

import numpy as np

from .noise import philox4x32, words

__all__ = ["item_id", "sample_seed"]


def sample_seed(seed: int, source: str, sample: int) -> int:
    """A sample's own seed: of the job's seed, the image's name and its number alone.

    53 bits, so that every reader of JSON keeps them: of the first two words of the Philox block
    (2³² - 1, sample, item low, item high), which no `normal` reaches.
    """
    counter = np.array([0xFFFFFFFF, sample & 0xFFFFFFFF, *words(item_id(source))], np.uint32)
    low, high = philox4x32(counter, np.array(words(seed), np.uint32))[:2].tolist()
    return int(low | high << 32) & (2**53 - 1)


def item_id(name: str) -> int:
    """A 64-bit number for an image, from its name alone, so that other images don't matter.

    The first eight bytes of the SHA-256 of the name in UTF-8, the lowest first.
    """
    return int.from_bytes(
        hashlib.sha256(name.encode(errors="surrogateescape")).digest()[:8], "little"
    )
