"""Counter-based noise: Philox4x32-10 and Box-Muller, the same numbers in every language.

Noise is a function of (seed, item, sample) and of nothing else, so it does not depend on batch
neighbours, order, resume or the number of threads. A job's seed, a picture's name and a sample's
number make the sample's own seed (`sample_seed`); with it, a stroke's and a candidate's number in
the places of item and sample make the noise. Element ``4 i + j`` of an array, in
row-major order, is the j-th normal of block i:

    counter = (i, sample, item low, item high)      key = (seed low, seed high)
    x_0 … x_3 = Philox4x32-10(counter, key)
    u_j = (x_j + ½) / 2³²                           uniform in (0,1)
    n_0, n_1 = √(-2 ln u_0) · (cos 2πu_1, sin 2πu_1)
    n_2, n_3 = √(-2 ln u_2) · (cos 2πu_3, sin 2πu_3)

Computed in float64 and rounded to float32. Philox: Salmon et al., "Parallel random numbers: as
easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

import hashlib
from math import prod

import numpy as np
from numpy.typing import NDArray

from .rows import Floats

__all__ = ["item_id", "normal", "philox4x32", "sample_seed"]

_MULTIPLIERS = np.array([0xD2511F53, 0xCD9E8D57], np.uint64)
_WEYL = np.array([0x9E3779B9, 0xBB67AE85], np.uint32)
_ROUNDS = 10
_LOW = np.uint64(0xFFFFFFFF)


def philox4x32(counter: NDArray[np.uint32], key: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Philox4x32-10: counter [...,4] uint32 and key [...,2] uint32 -> [...,4] uint32."""
    c, k = counter.astype(np.uint32), key.astype(np.uint32)
    for _ in range(_ROUNDS):
        product = c[..., [0, 2]].astype(np.uint64) * _MULTIPLIERS
        high, low = (product >> np.uint64(32)).astype(np.uint32), (product & _LOW).astype(np.uint32)
        c = np.stack(
            [
                high[..., 1] ^ c[..., 1] ^ k[..., 0],
                low[..., 1],
                high[..., 0] ^ c[..., 3] ^ k[..., 1],
                low[..., 0],
            ],
            axis=-1,
        )
        k = k + _WEYL  # wraps, as it should
    return c


def normal(seed: int, item: int, sample: int, shape: tuple[int, ...]) -> Floats:
    """Standard normal float32 of ``shape``.

    seed and item are taken modulo 2⁶⁴, sample modulo 2³²; up to 2³⁴ elements.
    """
    size = prod(shape)
    counter = np.empty((-(-size // 4), 4), np.uint32)
    counter[:, 0] = np.arange(len(counter), dtype=np.uint32)
    counter[:, 1] = sample & 0xFFFFFFFF
    counter[:, 2:] = _words(item)
    x = philox4x32(counter, np.array(_words(seed), np.uint32))
    u = (x.astype(np.float64) + 0.5) / 2.0**32
    radius, angle = np.sqrt(-2 * np.log(u[:, 0::2])), 2 * np.pi * u[:, 1::2]
    pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
    return pairs.reshape(-1)[:size].reshape(shape).astype(np.float32)


def sample_seed(seed: int, source: str, sample: int) -> int:
    """A sample's own seed: of the job's seed, the picture's name and its number alone.

    53 bits, so that every reader of JSON keeps them: of the first two words of the Philox block
    (2³² - 1, sample, item low, item high), which no `normal` reaches.
    """
    counter = np.array([0xFFFFFFFF, sample & 0xFFFFFFFF, *_words(item_id(source))], np.uint32)
    low, high = philox4x32(counter, np.array(_words(seed), np.uint32))[:2].tolist()
    return int(low | high << 32) & (2**53 - 1)


def item_id(name: str) -> int:
    """A 64-bit number for a picture, from its name alone, so that other pictures don't matter.

    The first eight bytes of the SHA-256 of the name in UTF-8, the lowest first.
    """
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")


def _words(value: int) -> list[int]:
    return [value & 0xFFFFFFFF, value >> 32 & 0xFFFFFFFF]
