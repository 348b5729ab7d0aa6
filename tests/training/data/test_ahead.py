"""Batches made ahead are the batches, and no more than a few are held."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from defectrt.errors import InputError
from defectrt.training.data.ahead import Ahead
from defectrt.training.data.crops import Crops
from defectrt.training.data.samples import GOOD, Cache, Stored


def crops():
    """Of samples that are decoded again and again: their cache holds one."""
    cache = Cache(limit=1)

    def sample(i):
        def read():
            rng = np.random.default_rng(i)
            mask = np.zeros((48, 48), bool)
            mask[10 : 14 + i, 20:30] = i % 2
            return rng.integers(0, 255, (48, 48, 3), np.uint8), mask

        return Stored(Path(f"{i}.png"), "spot" if i % 2 else GOOD, read, cache)

    return Crops([sample(i) for i in range(6)], 32, seed=7)


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("stride", [1, 3])
def test_batches_hold_the_same_bytes_with_and_without_workers(workers, stride):
    plain = crops()
    with Ahead(lambda n: crops().batch(n, 5), stride=stride, end=30, workers=workers) as ahead:
        for number in range(stride - 1, 30, stride):
            got, wanted = ahead[number], plain.batch(number, 5)
            assert got.pixels.tobytes() == wanted.pixels.tobytes()
            assert got.mask.tobytes() == wanted.mask.tobytes()
            assert got.defect_types == wanted.defect_types


def test_a_few_are_made_ahead_and_none_past_the_end():
    made, all_made = [], threading.Event()

    def make(number):
        made.append(number)
        if len(made) == 4:
            all_made.set()
        return number

    with Ahead(make, stride=2, end=8, workers=2) as ahead:
        assert ahead[0] == 0
        assert all_made.wait(10)
        assert sorted(made) == [0, 2, 4, 6]
        assert ahead[2] == 2
    assert sorted(made) == [0, 2, 4, 6]


def test_an_error_comes_with_its_batch():
    def make(number):
        if number == 2:
            raise InputError("2.png: damaged")
        return number

    with Ahead(make, stride=1, end=9, workers=3) as ahead:
        assert [ahead[0], ahead[1]] == [0, 1]
        with pytest.raises(InputError, match=r"2\.png: damaged"):
            ahead[2]
