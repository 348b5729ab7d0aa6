"""The scheduler: batches of one size, any order, every error in its place, bounded memory."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import replace

import numpy as np
import pytest
from support.fake_engine import LATENT, WINDOW, FakeEngine

from defectrt.config.synthesis import SynthesisConfig
from defectrt.diffusion.rows import Prompts
from defectrt.diffusion.sampler import generate, invert, run
from defectrt.errors import Cancelled, EngineError, InputError, UsageError
from defectrt.synthesis.pipeline import Pipeline, SourceImage
from defectrt.synthesis.scheduler import Call, Decode, Encode, Scheduler, Task


class Counting(FakeEngine):
    """Counts images, and how many calls are under way at once."""

    def __init__(self, calls=1):
        super().__init__()
        self.calls, self.sizes = calls, {"encode": [], "decode": [], "step": []}
        self._now, self.most, self._lock = 0, 0, threading.Lock()

    def _call(self, name, size, function):
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
            self.sizes[name].append(size)
        try:
            return function()
        finally:
            with self._lock:
                self._now -= 1

    def encode(self, pixels):
        return self._call("encode", len(pixels), lambda: FakeEngine.encode(self, pixels))

    def decode(self, latent):
        return self._call("decode", len(latent), lambda: FakeEngine.decode(self, latent))

    def step(self, rows):
        return self._call("step", len(rows.latent), lambda: FakeEngine.step(self, rows))


def problem(i, seed=0):
    rng = np.random.default_rng([seed, i])
    mask = np.zeros((1, 1, LATENT, LATENT), np.float32)
    y, x = rng.integers(0, LATENT - 4, 2)
    mask[..., y : y + 3, x : x + 4] = 1
    pixels = rng.uniform(-1, 1, (1, 3, WINDOW, WINDOW)).astype(np.float32)
    noise = rng.normal(size=(1, 3, LATENT, LATENT)).astype(np.float32)
    return pixels, mask, noise


def method(engine, i, background="replay", steps=4):
    """The method as one would write it by hand, as work."""
    pixels, mask, noise = problem(i)
    prompts = Prompts(*(np.full(1, k, np.int64) for k in (2, 0, 1)))
    schedule = engine.manifest.steps(steps)
    z0 = yield Encode(pixels)
    path = yield from invert(z0, mask, prompts, schedule)
    made = yield from generate(path, mask, noise, prompts, schedule, background)
    pixels = yield Decode(made.latent)
    return i, pixels


def alone(engine, i, background="replay", steps=4):
    """The same, step by step on the engine itself."""
    pixels, mask, noise = problem(i)
    prompts = Prompts(*(np.full(1, k, np.int64) for k in (2, 0, 1)))
    schedule = engine.manifest.steps(steps)
    path = run(engine.step, invert(engine.encode(pixels), mask, prompts, schedule))
    made = run(engine.step, generate(path, mask, noise, prompts, schedule, background))
    return engine.decode(made.latent)


def results(tasks):
    return dict(task.result() for task in tasks)


@pytest.mark.parametrize("calls", [1, 3])
@pytest.mark.parametrize("batch", [1, 2, 4, 7])
def test_many_in_any_phase_are_each_alone(batch, calls):
    """Inversion and generation of 2 and 4 steps, replay and dual, mixed in every batch."""
    engine, plain = Counting(calls), FakeEngine()
    ways = [("replay", 4), ("dual", 4), ("replay", 2), ("dual", 2)]
    tasks = [Task(method(engine, i, *ways[i % 4])) for i in range(13)]
    got = results(Scheduler(engine, batch_size=batch).run(tasks))
    assert sorted(got) == list(range(13))
    for i in range(13):
        np.testing.assert_array_equal(got[i], alone(plain, i, *ways[i % 4]))
    assert set(engine.sizes["step"]) == {batch}
    assert engine.most <= calls


def test_batches_are_filled_while_there_is_enough():
    engine = Counting()
    scheduler = Scheduler(engine, batch_size=4)
    rows = 40 * 8
    assert len(list(scheduler.run(Task(method(engine, i)) for i in range(40)))) == 40
    assert scheduler.stats.rows == rows
    assert len(engine.sizes["step"]) * 4 == rows + scheduler.stats.padding
    assert scheduler.stats.padding < 0.15 * rows
    assert scheduler.stats.calls == {"encode": 40, "decode": 40, "rows": len(engine.sizes["step"])}
    assert set(scheduler.stats.seconds) == {"encode", "decode", "rows"}


class Device(FakeEngine):
    """What takes a while and one call at a time."""

    def __init__(self):
        super().__init__()
        self._lock = threading.Lock()

    def step(self, rows):
        assert self._lock.acquire(blocking=False), "a call waits for the device"
        try:
            time.sleep(0.001)
            return super().step(rows)
        finally:
            self._lock.release()


def test_a_device_computes_hardly_any_padding():
    """80 samples of 100 steps and batches of 16, as a card has them."""

    def long(engine, i):
        pixels, mask, _ = problem(i)
        z0 = yield Encode(pixels)
        prompts = Prompts(*(np.full(1, k, np.int64) for k in (2, 0, 1)))
        for _ in range(25):
            yield from invert(z0, mask, prompts, engine.manifest.steps(4))
        return (yield Decode(z0))

    engine = Device()
    scheduler = Scheduler(engine, batch_size=16)
    assert len(list(scheduler.run(Task(long(engine, i)) for i in range(80)))) == 80
    assert scheduler.stats.rows == 80 * 100
    assert scheduler.stats.padding <= 0.05 * (scheduler.stats.rows + scheduler.stats.padding)


def test_tasks_are_taken_only_as_there_is_room():
    """Ten thousand tasks, and never more than eight alive."""
    engine, alive, most = Counting(), 0, 0

    def work(i):
        yield Call("read", lambda: None)
        return i

    def tasks():
        nonlocal alive, most
        for i in range(10_000):
            alive += 1
            most = max(most, alive)
            yield Task(work(i))

    seen = []
    for task in Scheduler(engine, ahead=8).run(tasks()):
        alive -= 1
        seen.append(task.result())
    assert sorted(seen) == list(range(10_000))
    assert most <= 9  # one more is taken before its predecessor's result is


def test_once_told_to_stop_none_is_begun_and_all_under_way_are_finished():
    begun, stop = [], threading.Event()

    def work(i):
        begun.append(i)
        yield Call("read", lambda: None)
        return i

    ended = []
    for task in Scheduler(Counting(), ahead=4).run((Task(work(i)) for i in range(100)), stop):
        ended.append(task.result())
        stop.set()
    assert begun == [0, 1, 2, 3]
    assert sorted(ended) == begun


def test_shared_work_is_done_once_and_waiting_for_nothing_is_no_wait():
    engine, done = FakeEngine(), []

    def shared():
        yield Call("x", lambda: done.append(1))
        return "it"

    def work(common):
        ((one, two), nothing) = (yield (common, common)), (yield ())
        return one, two, nothing

    common = Task(shared())
    tasks = [Task(work(common)) for _ in range(5)]
    assert [t.result() for t in Scheduler(engine, ahead=2).run(tasks)] == [("it", "it", [])] * 5
    assert done == [1]


def test_an_error_is_its_own_tasks_and_may_be_caught():
    def bad():
        yield Call("read", lambda: None)
        raise InputError("damaged")

    def careful(other):
        try:
            yield (other,)
        except InputError as fault:
            return f"caught {fault}"

    def good():
        return (yield Call("read", lambda: "good"))

    def fails():
        yield Call("read", lambda: 1 / 0)

    shared = Task(bad())
    tasks = [Task(careful(shared)), Task(good()), shared, Task(fails())]
    ended = list(Scheduler(FakeEngine()).run(tasks))
    assert len(ended) == 4
    assert [tasks[0].result(), tasks[1].result()] == ["caught damaged", "good"]
    with pytest.raises(InputError, match="damaged"):
        tasks[2].result()
    with pytest.raises(ZeroDivisionError):
        tasks[3].result()


def test_a_failing_engine_is_everybodys_error(monkeypatch):
    engine = FakeEngine()

    def fail(rows):
        raise EngineError("out of memory")

    monkeypatch.setattr(engine, "step", fail)
    for task in Scheduler(engine, batch_size=2).run(Task(method(engine, i)) for i in range(5)):
        with pytest.raises(EngineError, match="out of memory"):
            task.result()


def test_leaving_early_stops_the_threads():
    engine = Counting()
    before = threading.active_count()
    running = Scheduler(engine).run(Task(method(engine, i)) for i in range(1000))
    next(running)
    running.close()
    assert threading.active_count() == before
    assert len(engine.sizes["encode"]) < 100


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"ahead": 0}])
def test_impossible_sizes(options):
    with pytest.raises(UsageError, match="at least 1"):
        Scheduler(FakeEngine(), **options)


# ---- samples, on an engine without a network and on the bundled one ---------------------------


def goods(size=(50, 60)):
    rng = np.random.default_rng(0)
    for i in range(5):
        image = rng.normal(150, 8, (*size, 3)).clip(0, 255).astype(np.uint8)
        mask = np.zeros(size, bool)
        mask[8 + i : 14 + 2 * i, 10 : 18 + 3 * i] = True
        far = np.zeros(size, bool)
        far[-8:-3, -12:-4] = True
        yield SourceImage(f"{i}.png", image), [mask, far][: 1 + i % 2]


def samples(engine, config, order=(0, 1, 2, 3, 4), ahead=None, batch_size=3):
    """All samples of some images, started in some order."""
    pipeline, images = Pipeline(engine, config), list(goods())
    tasks = (
        Task(pipeline.sample(images[i][0], k, images[i][1]))
        for i in order
        for k in range(config.count)
    )
    scheduler = Scheduler(engine, batch_size=batch_size, ahead=ahead)
    done = [t.result() for t in scheduler.run(tasks)]
    return {(s.source.name, s.number): s for s in done}


def same(one, two):
    assert one.keys() >= two.keys()
    for key, sample in two.items():
        assert one[key].figures == sample.figures
        assert one[key].seed == sample.seed
        np.testing.assert_array_equal(one[key].image, sample.image)
        np.testing.assert_array_equal(one[key].label, sample.label)


def real_engine(calls=1):
    from defectrt.engines.loading import BUNDLED_ENGINE, load_engine

    return load_engine(BUNDLED_ENGINE, threads=calls, calls=calls)


def config_of(engine, **options):
    steps = min(map(int, engine.manifest.schedule.tables))
    return SynthesisConfig(defect=engine.manifest.defect_types[0], steps=steps, **options)


@pytest.mark.parametrize(
    ("opened", "count"),
    [(FakeEngine, 2), pytest.param(real_engine, 1, marks=pytest.mark.slow)],
    ids=["fake", "real"],
)
def test_a_sample_does_not_depend_on_its_neighbours(opened, count):
    """Bit for bit: another order, others missing, fewer at once; all in batches of one size.

    A second sample of an image is another task, as another image is: the real engine makes one.
    """
    with opened() as engine:
        config = config_of(engine, count=count, candidates=2)
        whole = samples(engine, config)
        assert len(whole) == 5 * count
        same(whole, samples(engine, config, order=(3, 1, 4, 0, 2)))
        same(whole, samples(engine, config, order=(3,)))
        same(whole, samples(engine, config, order=(0, 4), ahead=1))


@pytest.mark.slow
def test_another_batch_is_at_most_a_grey_level_away():
    """The bundled engine, in one thread and in two."""
    with real_engine() as engine, real_engine(2) as twice:
        config, order = config_of(engine), (0, 1, 4)  # one, two and one large mask
        whole = samples(engine, config, order)
        for other, batch in ((engine, 1), (twice, 8)):
            for key, sample in samples(other, config, order, batch_size=batch).items():
                gap = whole[key].image.astype(int) - sample.image
                assert np.abs(gap).max() <= 1


def test_rows_of_more_than_one_image_are_the_samplers_only():
    """The scheduler's requests are single rows; a wrong one is an error, not a wrong result."""

    def work(engine):
        z = np.zeros((2, 3, LATENT, LATENT), np.float32)
        yield Encode(np.zeros((2, 3, WINDOW, WINDOW), np.float32))
        return z

    (task,) = Scheduler(FakeEngine()).run([Task(work(None))])
    with pytest.raises(InputError, match="one image or row at a time"):
        task.result()


class Fussy(Counting):
    """Fails for every batch with a certain row."""

    def step(self, rows):
        if (rows.timestep < 0).any():
            self._call("step", len(rows.latent), lambda: None)
            raise EngineError("a row that it does not like")
        return super().step(rows)


def hostile(engine):
    """Work that asks for a row that no engine takes."""
    pixels, mask, _ = problem(0)
    z0 = yield Encode(pixels)
    row = next(invert(z0, mask, Prompts(*(np.full(1, 0, np.int64),) * 3), engine.manifest.steps(4)))
    yield replace(row, timestep=row.timestep * 0 - 1)


def test_a_row_that_no_engine_takes_costs_nobody_elses_result():
    engine = Fussy()
    good = [Task(method(engine, i)) for i in range(3)]
    bad = Task(hostile(engine))
    tasks = [good[0], bad, *good[1:]]
    done = list(Scheduler(engine, batch_size=4).run(tasks))
    assert len(done) == 4
    for task in good:
        i, pixels = task.result()
        assert np.array_equal(pixels, alone(FakeEngine(), i))
    with pytest.raises(EngineError, match="does not like"):
        bad.result()
    assert set(engine.sizes["step"]) == {4}


def test_a_source_that_has_nothing_for_now_is_asked_again_after_it_was_woken():
    engine, given = FakeEngine(), deque()
    scheduler, over = Scheduler(engine), threading.Event()

    def source():
        while not over.is_set():
            yield given.popleft() if given else None

    ended = []
    thread = threading.Thread(target=lambda: ended.extend(scheduler.run(source())))
    thread.start()
    for i in range(3):
        task = Task(method(engine, i))
        given.append(task)
        scheduler.wake()
        wait_for(lambda i=i: len(ended) == i + 1)
    assert thread.is_alive()
    over.set()
    scheduler.wake()
    thread.join(10)
    assert not thread.is_alive()
    assert [task.result()[0] for task in ended] == [0, 1, 2]


def wait_for(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def counted_steps(steps, wait=None):
    """Work of so many calls; takes down which of them were made."""
    for i in range(4):
        yield Call("count", lambda i=i: steps.append(i))
        if wait and not i:
            yield Call("wait", wait)
    return "made"


def test_a_cancelled_task_ends_at_its_next_step_and_others_go_on():
    steps, others = [], []
    task = Task(counted_steps(steps, lambda: task.cancel()))
    other = Task(counted_steps(others))
    ended = list(Scheduler(FakeEngine()).run([task, other]))
    assert len(ended) == 2
    assert steps == [0]
    with pytest.raises(Cancelled):
        task.result()
    assert (other.result(), others) == ("made", [0, 1, 2, 3])


def test_a_task_that_is_cancelled_before_it_begins_does_nothing():
    steps = []
    task = Task(counted_steps(steps))
    task.cancel()
    list(Scheduler(FakeEngine()).run([task]))
    assert steps == []
    with pytest.raises(Cancelled):
        task.result()


def test_cancelling_after_the_end_changes_nothing():
    task = Task(counted_steps([]))
    list(Scheduler(FakeEngine()).run([task]))
    task.cancel()
    assert task.result() == "made"


@pytest.mark.parametrize("waiting", [1, 2])
def test_what_a_cancelled_task_waits_for_ends_too_unless_another_waits(waiting):
    steps, started, go_on = [], threading.Event(), threading.Event()

    def shared_work():
        yield Call("wait", lambda: (started.set(), go_on.wait(20)))
        for i in range(3):
            yield Call("count", lambda i=i: steps.append(i))
        return "shared"

    shared = Task(shared_work())

    def waits():
        (found,) = yield (shared,)
        yield Call("go on", lambda: None)
        return found

    tasks = [Task(waits()) for _ in range(waiting)]

    def cancel():
        started.wait(20)
        tasks[0].cancel()
        go_on.set()

    threading.Thread(target=cancel).start()
    list(Scheduler(FakeEngine()).run(tasks))
    with pytest.raises(Cancelled):
        tasks[0].result()
    if waiting == 1:
        assert steps == []
    else:
        assert tasks[1].result() == "shared"
        assert steps == [0, 1, 2]
