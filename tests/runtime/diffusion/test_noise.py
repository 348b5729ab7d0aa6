"""Philox against its published vectors; the normals against their definition and statistics."""

from __future__ import annotations

import math

import numpy as np
import pytest

from defectrt.diffusion.noise import normal, philox4x32
from defectrt.diffusion.seeds import item_id


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [  # Random123, kat_vectors, philox4x32 with 10 rounds
        (
            "00000000 00000000 00000000 00000000",
            "00000000 00000000",
            "6627e8d5 e169c58d bc57ac4c 9b00dbd8",
        ),
        (
            "ffffffff ffffffff ffffffff ffffffff",
            "ffffffff ffffffff",
            "408f276d 41c83b0e a20bc7c6 6d5451fd",
        ),
        (
            "243f6a88 85a308d3 13198a2e 03707344",
            "a4093822 299f31d0",
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_known_answers(counter, key, expected):
    counter, key, expected = (
        np.array([int(word, 16) for word in text.split()], np.uint32)
        for text in (counter, key, expected)
    )
    np.testing.assert_array_equal(philox4x32(counter, key), expected)
    np.testing.assert_array_equal(philox4x32(counter[None, None], key)[0, 0], expected)


def test_counter_layout_and_box_muller_one_by_one():
    """The documented layout, element by element, so that other languages can repeat it."""
    seed, item, sample = 0x0123456789ABCDEF, 0xFEDCBA9876543210, 7
    got = normal(seed, item, sample, (2, 7))
    for n in range(14):
        i, j = divmod(n, 4)
        x = philox4x32(
            np.array([i, sample, 0x76543210, 0xFEDCBA98], np.uint32),
            np.array([0x89ABCDEF, 0x01234567], np.uint32),
        )
        u = [(int(word) + 0.5) / 2**32 for word in x]
        pair = 2 * (j // 2)
        wave = math.cos if j % 2 == 0 else math.sin
        value = math.sqrt(-2 * math.log(u[pair])) * wave(2 * math.pi * u[pair + 1])
        assert got.reshape(-1)[n] == pytest.approx(value, abs=1e-6)


def test_every_key_word_counts():
    base = normal(1, 2, 3, (8,))
    others = [
        normal(2, 2, 3, (8,)),
        normal(1 + (1 << 32), 2, 3, (8,)),
        normal(1, 3, 3, (8,)),
        normal(1, 2 + (1 << 32), 3, (8,)),
        normal(1, 2, 4, (8,)),
    ]
    assert all(not np.array_equal(base, other) for other in others)
    np.testing.assert_array_equal(base, normal(1, 2, 3, (8,)))


def test_a_longer_array_begins_with_the_shorter():
    np.testing.assert_array_equal(normal(5, 6, 7, (3, 5)).reshape(-1), normal(5, 6, 7, (99,))[:15])


def test_the_numbers_are_normal():
    n = 200_000
    x = normal(0, 0, 0, (n,)).astype(np.float64)
    assert x.dtype == np.float64
    assert normal(0, 0, 0, (4,)).dtype == np.float32
    # five standard errors each
    assert abs(x.mean()) < 5 / math.sqrt(n)
    assert abs(x.var() - 1) < 5 * math.sqrt(2 / n)
    assert abs((x**3).mean()) < 5 * math.sqrt(15 / n)
    assert abs((x**4).mean() - 3) < 5 * math.sqrt(96 / n)
    cdf = np.searchsorted(np.sort(x), [-2, -1, 0, 1, 2]) / n
    expected = [0.5 * (1 + math.erf(v / math.sqrt(2))) for v in (-2, -1, 0, 1, 2)]
    np.testing.assert_allclose(cdf, expected, atol=5 * 0.5 / math.sqrt(n))
    pairs = [np.corrcoef(x[:-k], x[k:])[0, 1] for k in (1, 2, 3, 4)]
    assert max(map(abs, pairs)) < 5 / math.sqrt(n)


def test_item_ids_are_pinned():
    """A change of these would change every image that anyone has made."""
    # of: printf a/1.png | sha256sum
    assert item_id("") == 0x141CFC9842C4B0E3
    assert item_id("a/1.png") == 0x8284070893EA3086
