"""One scheduler feeds the engine with rows of many images in any phase.

Work is written as generators that ask for what they need and are sent the answer:

    z0 = yield Encode(pixels)                   through the encoder
    z, attention = yield Rows(...)              one row step
    pixels = yield Decode(z0)                   through the decoder
    patch = yield Call("paint", function)       anything else that takes time, in a thread
    one, two = yield (task, task)               other generators, run at the same time

The scheduler holds many of them, puts what they ask for into batches of fixed sizes, and goes on
with each as its answer arrives. The engine sees batches of one size only, the last one filled up
with repetitions, so that a result cannot depend on which neighbours a row happened to have.
"""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from functools import partial
from heapq import heappop, heappush
from queue import SimpleQueue
from time import perf_counter
from typing import Any, Generic, NoReturn, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..config.engine import BATCH_SIZE
from ..cores import cores
from ..diffusion.rows import Floats, Rows
from ..engines.engine import Engine
from ..errors import Cancelled, EngineError, InputError, UsageError

__all__ = ["Call", "Decode", "Encode", "Request", "Scheduler", "Stats", "Task", "Work"]

T = TypeVar("T")
Array: TypeAlias = NDArray[Any]

#: Images in the encoder or decoder at once: one of them already fills a device, and most of
#: the time only one is waiting.
_IMAGES = 1
#: Bytes that all tasks under way may hold, unless told otherwise.
MEMORY = 3 << 29
#: Threads for everything but the engine, at least; a card needs all that the cores can do.
_HELPERS = 2


@dataclass(frozen=True)
class Encode:
    """pixels [1,3,H,W] float32; is sent latents [1,C,h,w]."""

    pixels: Floats


@dataclass(frozen=True)
class Decode:
    """latent [1,C,h,w] float32; is sent pixels [1,3,H,W]."""

    latent: Floats


@dataclass(frozen=True)
class Call:
    """A function to call in a thread; is sent what it returns. ``stage`` names it in `Stats`."""

    stage: str
    function: Callable[[], Any]


Request: TypeAlias = "Encode | Decode | Rows | Call | tuple[Task[Any], ...]"
#: A generator that the scheduler can run.
Work: TypeAlias = Generator[Request, Any, T]


class Task(Generic[T]):
    """Work that is run once, however many others wait for it."""

    def __init__(self, work: Work[T], memory: int = 0) -> None:
        """Nothing happens before a scheduler meets it; it then holds about ``memory`` bytes."""
        self._work, self.memory = work, memory
        self._age: int | None = None
        self._for: Task[Any] | None = None
        self._cancelled = False
        self._then: list[Callable[[], None]] = []
        self._ended: Callable[[], T] | None = None

    def cancel(self) -> None:
        """Nobody waits for it any more: `Cancelled` ends it at its next step, from any thread.

        So it does to what it waits for, unless others wait for that too. Work that has ended stays
        as it is.
        """
        self._cancelled = True

    @property
    def _is_dropped(self) -> bool:
        return self._cancelled or (self._for is not None and self._for._is_dropped)

    def result(self) -> T:
        """What the work returned; raises what it raised. Only once it has ended."""
        assert self._ended is not None
        return self._ended()


@dataclass
class Stats:
    """Where the time went.

    seconds     busy time by stage, added over the threads
    calls       by stage
    rows        row steps that were asked for
    padding     row steps that only filled up a batch
    """

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    calls: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    rows: int = 0
    padding: int = 0


@dataclass(order=True)
class _Waiting:
    """A request for the engine, and the task that goes on with the answer; the oldest first.

    is_alone  whether a batch that it was in failed, so that it gets one of its own
    """

    age: int
    number: int
    task: Task[Any] = field(compare=False)
    request: Any = field(compare=False)
    is_alone: bool = field(compare=False, default=False)


class Scheduler:
    """Runs tasks on an engine, which stays the caller's to close.

    batch_size  rows in the engine at once; every batch has exactly this size
    ahead       tasks that are under way at once, by default enough to fill every batch twice
    memory      bytes that these may hold together, as they say themselves; one may hold more
    """

    def __init__(
        self,
        engine: Engine,
        *,
        batch_size: int = BATCH_SIZE,
        ahead: int | None = None,
        memory: int = MEMORY,
    ) -> None:
        """Raises `UsageError` for a batch size or a number of tasks below 1."""
        if batch_size < 1 or (ahead is not None and ahead < 1):
            raise UsageError("batch_size and ahead: at least 1")
        self.stats = Stats()
        self._engine, self._memory = engine, memory
        self._threads = max(_HELPERS, cores())
        self._ahead = ahead or 2 * batch_size * engine.calls + self._threads
        self._sizes = {Encode: _IMAGES, Decode: _IMAGES, Rows: batch_size}
        self._waiting: dict[type, list[_Waiting]] = {kind: [] for kind in self._sizes}
        self._events: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._begun = set[Task[Any]]()
        self._asked = self._busy = 0

    def run(
        self, tasks: Iterable[Task[T] | None], stop: threading.Event | None = None
    ) -> Iterator[Task[T]]:
        """Run tasks and yield each as it ends; `Task.result` then tells what became of it.

        Tasks are taken from the iterable only as there is room for them, and one beyond; a None
        says that there is none for now, and after `wake` it is asked again. Once ``stop`` is set,
        none is begun any more, and those under way are finished. Leaving the loop early drops what
        is not finished; calls that are under way are waited for, and ended first where it was
        Ctrl-C that left it: an engine that never returns would never be waited for.
        """
        source, ended = _Source(tasks), deque[Task[T]]()
        active, held = 0, 0
        try:
            with (
                _Pool(self._engine.calls, self._engine.stop) as self._engines,
                _Pool(self._threads) as self._helpers,
            ):
                while True:
                    while (
                        not (stop and stop.is_set())
                        and active < self._ahead
                        and (task := source.peek())
                        and (not active or held + task.memory <= self._memory)
                    ):
                        task._then.append(partial(ended.append, task))
                        self._start(task, source.take())
                        active, held = active + 1, held + task.memory
                    self._feed()
                    if ended:
                        task = ended.popleft()
                        active, held = active - 1, held - task.memory
                        yield task
                    elif active or not (source.over or (stop and stop.is_set())):
                        self._events.get()()
                    else:
                        return
        finally:
            self._drop()

    def wake(self) -> None:
        """There are tasks again, or it is to stop; from any thread."""
        self._events.put(lambda: None)

    def _drop(self) -> None:
        """Let go of what is not finished, at once: tasks and what they wait for hold each other."""
        for task in self._begun:
            task._work.close()
            task._then.clear()
        self._begun.clear()
        for waiting in self._waiting.values():
            waiting.clear()
        self._events = SimpleQueue()

    def _start(self, task: Task[Any], age: int, for_: Task[Any] | None = None) -> None:
        if task._age is None:
            task._age, task._for = age, for_
            self._begun.add(task)
            self._advance(task, lambda: task._work.send(None))

    def _advance(self, task: Task[Any], go_on: Callable[[], Request]) -> None:
        """Let a task go on to its next request, or to its end."""
        try:
            request = go_on()
        except StopIteration as end:
            value = end.value
            task._ended = lambda: value
        except Exception as error:
            task._ended = partial(_raise, error)
        else:
            self._ask(task, request)
            return
        self._begun.discard(task)
        go_on_with, task._then = task._then, []  # a task that held them would hold itself
        for then in go_on_with:
            then()

    def _ask(self, task: Task[Any], request: Request, *, is_alone: bool = False) -> None:
        if task._is_dropped:
            self._send(task, partial(_raise, Cancelled("nobody waits for it any more")))
        elif isinstance(request, tuple):
            self._join(task, request)
        elif isinstance(request, Call):
            self._submit(self._helpers, request.stage, request.function, partial(self._send, task))
        elif any(len(getattr(request, f.name)) != 1 for f in fields(request)):
            self._send(task, partial(_raise, InputError("ask for one image or row at a time")))
        else:
            assert task._age is not None
            self._asked += 1
            entry = _Waiting(task._age, self._asked, task, request, is_alone)
            heappush(self._waiting[type(request)], entry)

    def _send(self, task: Task[Any], answer: Callable[[], Any]) -> None:
        """Send a task the answer that it waits for, or throw it the error."""
        try:
            value = answer()
        except Exception as error:
            self._advance(task, partial(task._work.throw, error))
        else:
            self._advance(task, lambda: task._work.send(value))

    def _join(self, task: Task[Any], others: Sequence[Task[Any]]) -> None:
        """Go on with a task when all the others have ended."""
        left = len(others) + 1

        def one_less() -> None:
            nonlocal left
            left -= 1
            if not left:
                self._send(task, lambda: [other.result() for other in others])

        for other in others:
            if other._ended:
                one_less()
            else:
                other._then.append(one_less)
                assert task._age is not None
                if other._age is not None:
                    other._for = None  # another waits for it too
                self._start(other, task._age, task)
        one_less()

    def _feed(self) -> None:
        """Give the engine what there is to do."""
        while kind := self._next_kind():
            waiting = self._waiting[kind]
            size = self._sizes[kind]
            batch = _batch(waiting, size)
            if kind is Rows:
                self.stats.rows += len(batch)
                self.stats.padding += size - len(batch)
            self._busy += 1
            compute = partial(self._compute, kind, [entry.request for entry in batch], size)
            then = partial(self._share, batch)
            self._submit(self._engines, kind.__name__.lower(), compute, then)

    def _next_kind(self) -> type | None:
        """What the engine does next: a full batch, or what there is if it would stand idle.

        Of full batches one more than it can do at once, so that it need not wait for us.
        """
        free = self._engine.calls - self._busy
        some = [kind for kind, waiting in self._waiting.items() if waiting]
        full = [kind for kind in some if len(self._waiting[kind]) >= self._sizes[kind]]
        ready = full if full and free >= 0 else some if free > 0 else []
        return min(ready, key=lambda kind: self._waiting[kind][0], default=None)

    def _compute(self, kind: type, requests: Sequence[Any], size: int) -> list[Any]:
        """A batch through the engine, in its own thread; one answer a request."""
        names = [f.name for f in fields(kind)]
        arrays = [_stack([getattr(r, name) for r in requests], size) for name in names]
        if kind is Rows:
            return list(zip(*map(_split, self._engine.step(Rows(*arrays))), strict=True))
        return _split((self._engine.encode if kind is Encode else self._engine.decode)(*arrays))

    def _share(self, batch: Sequence[_Waiting], answers: Callable[[], list[Any]]) -> None:
        """Hand the answers of a batch back; after an error each is asked for again, alone.

        So what makes an engine fail costs nobody else's result.
        """
        self._busy -= 1
        try:
            values = [partial(_same, value) for value in answers()[: len(batch)]]
        except EngineError as error:
            if len(batch) > 1:
                for entry in batch:
                    self._ask(entry.task, entry.request, is_alone=True)
                return
            values = [partial(_raise, error)]
        except Exception as error:
            values = [partial(_raise, error)] * len(batch)
        for entry, value in zip(batch, values, strict=True):
            self._send(entry.task, value)

    def _submit(
        self,
        pool: Executor,
        stage: str,
        function: Callable[[], Any],
        then: Callable[[Callable[[], Any]], None],
    ) -> None:
        """Call a function in a pool; ``then`` gets its result here, in the thread of `run`."""

        def timed() -> tuple[Any, float]:
            start = perf_counter()
            return function(), perf_counter() - start

        def finish(future: Future[tuple[Any, float]]) -> None:
            if not future.exception():
                self.stats.seconds[stage] += future.result()[1]
                self.stats.calls[stage] += 1
            then(lambda: future.result()[0])

        future = pool.submit(timed)
        future.add_done_callback(lambda future: self._events.put(partial(finish, future)))


class _Source(Generic[T]):
    """Tasks in turn, each with its age; looked at before they are taken.

    over  whether there are no more
    """

    def __init__(self, tasks: Iterable[Task[T] | None]) -> None:
        self._tasks, self._age, self.over = iter(tasks), -1, False
        self._next: Task[T] | None = None

    def peek(self) -> Task[T] | None:
        """The next one; None if there is none, or none for now."""
        if self._next is None and not self.over:
            try:
                self._next = next(self._tasks)
            except StopIteration:
                self.over = True
        return self._next

    def take(self) -> int:
        """The one that `peek` showed is under way; returns its age."""
        self._next, self._age = None, self._age + 1
        return self._age


class _Pool(ThreadPoolExecutor):
    """Threads that drop at the end of the block what they have not begun.

    What they have begun is waited for; after Ctrl-C ``stop`` is called first, to end it.
    """

    def __init__(self, threads: int, stop: Callable[[], None] = lambda: None) -> None:
        super().__init__(threads)
        self._stop = stop

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is KeyboardInterrupt:
            self._stop()
        self.shutdown(cancel_futures=True)


def _raise(error: Exception) -> NoReturn:
    raise error


def _same(value: T) -> T:
    return value


def _batch(waiting: list[_Waiting], size: int) -> list[_Waiting]:
    """The oldest requests of a heap that go together, taken out of it."""
    batch = [heappop(waiting)]
    while waiting and len(batch) < size and not (batch[0].is_alone or waiting[0].is_alone):
        batch.append(heappop(waiting))
    return batch


def _stack(parts: Sequence[Array], size: int) -> Array:
    """One row each -> [size,…], filled up with repetitions of the last."""
    return np.concatenate([*parts, *[parts[-1]] * (size - len(parts))])


def _split(batch: Floats) -> list[Floats]:
    return list(batch[:, None])
