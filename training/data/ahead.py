"""Batches made in threads, ahead of the steps that take them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from defectrt.closing import Closing

from .crops import Batch

__all__ = ["Ahead"]


class Ahead(Closing):
    """Every ``stride``-th batch up to ``end``, as ``make`` makes it of its number.

    A batch is a function of its number alone, so it holds the same bytes whoever makes it and
    when. ``workers`` threads make as many batches ahead as they are, and one: that many are held.
    """

    def __init__(
        self, make: Callable[[int], Batch], *, stride: int, end: int, workers: int
    ) -> None:
        """Nothing is made before the first batch is asked for."""
        self._make, self._stride, self._end, self._workers = make, stride, end, workers
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="batches")
        self._made: dict[int, Future[Batch]] = {}

    def __getitem__(self, number: int) -> Batch:
        """The batch of that number; raises what making it raised."""
        last = min(self._end, number + self._stride * (self._workers + 1) + 1)
        for wanted in range(number, max(last, number + 1), self._stride):
            if wanted not in self._made:
                self._made[wanted] = self._pool.submit(self._make, wanted)
        return self._made.pop(number).result()

    def close(self) -> None:
        """Drop what is not begun; wait for the rest."""
        self._pool.shutdown(cancel_futures=True)
