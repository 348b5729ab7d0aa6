"""Memory is bounded in bytes: large images are under way one after another."""

from __future__ import annotations

import numpy as np
import pytest
from support.fake_engine import FakeEngine
from support.outputs import save

from defectrt.synthesis import job
from defectrt.synthesis.pipeline import memory_of
from defectrt.synthesis.scheduler import Call, Scheduler, Task
from defectrt.synthesis.synthesizer import Synthesizer


def under_way(sizes, memory):
    """The most tasks that were under way at once, and the most bytes that these held."""
    held, most = [], [0, 0]

    def work(size):
        held.append(size)
        most[:] = max(most[0], len(held)), max(most[1], sum(held))
        yield Call("wait", lambda: None)
        yield Call("wait", lambda: None)
        held.remove(size)

    tasks = (Task(work(size), size) for size in sizes)
    ended = list(Scheduler(FakeEngine(), ahead=6, memory=memory).run(tasks))
    assert len(ended) == len(sizes)
    return tuple(most)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([10] * 20, (6, 60)),
        ([40] * 20, (2, 80)),
        ([100] * 5, (1, 100)),
        ([1000] * 5, (1, 1000)),
        ([0] * 20, (6, 0)),
    ],
)
def test_as_many_tasks_are_under_way_as_there_is_memory_for(sizes, expected):
    assert under_way(sizes, memory=100) == expected


def test_large_and_small_ones_in_turn():
    count, held = under_way([90, 5, 5, 5, 90, 5] * 5, memory=100)
    assert held <= 100
    assert count > 1


def tasks_of(monkeypatch):
    """The memory of all tasks that a scheduler was given."""
    seen, run = [], Scheduler.run

    def watched(self, tasks, stop=None):
        def noted():
            for task in tasks:
                seen.append(task.memory)
                yield task

        return run(self, noted(), stop)

    monkeypatch.setattr(Scheduler, "run", watched)
    return seen


def test_a_job_knows_what_its_images_hold(go, monkeypatch):
    seen = tasks_of(monkeypatch)
    go(count=2)
    sizes = [(60, 80), (48, 40), (50, 50)]
    assert seen == [memory_of(*size) for size in sizes for _ in range(2)]
    go(count=2)
    assert len(seen) == 6


def test_a_synthesizer_knows_it_too(fake_engine, monkeypatch):
    seen = tasks_of(monkeypatch)
    with Synthesizer(engine=fake_engine[0], steps=2) as synthesizer:
        list(synthesizer.run([np.full((40, 60, 3), 150, np.uint8)]))
    assert seen == [memory_of(40, 60)]


def test_an_image_that_cannot_be_read_holds_nothing(tmp_path):
    (tmp_path / "a.png").write_bytes(b"none")
    assert job._memory_of(tmp_path / "a.png") == 0
    save(tmp_path / "b.png", np.zeros((7, 9), np.uint8))
    assert job._memory_of(tmp_path / "b.png") == memory_of(7, 9)


@pytest.mark.parametrize("where", [(0, 0), (511, 9), (300, 0)])
def test_one_bit_outside_the_band_is_seen_wherever_it_is(where):
    one, band = np.zeros((512, 10, 3), np.uint8), np.zeros((512, 10), bool)
    band[290:310, 3:8] = True
    two = one.copy()
    two[band] = 9
    parts = [slice(0, 256), slice(256, 512)]
    assert all(job._same_outside(one[p], two[p], band[p]) for p in parts)
    two[where] += 1
    assert not all(job._same_outside(one[p], two[p], band[p]) for p in parts)
