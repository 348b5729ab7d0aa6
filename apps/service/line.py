"""One engine and the samples that wait for it: rows of all clients share its batches."""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import lru_cache, partial
from time import monotonic
from typing import TypeAlias

from defectrt.closing import Closing
from defectrt.config.job import SynthesizerConfig
from defectrt.engines.loading import BUNDLED_ENGINE, batch_size_of, open_engine
from defectrt.engines.manifest import MANIFEST
from defectrt.errors import EngineError
from defectrt.files import sha256_of
from defectrt.output.mark import Mark
from defectrt.synthesis.scheduler import Scheduler, Task
from defectrt.synthesis.workpiece import Checked, Result
from defectrt.synthesis.workshop import Workshop

from .errors import Busy, Stopping

__all__ = ["Line", "Room", "Ticket"]

Ticket: TypeAlias = "Future[Result]"
#: Configurations that stay set up, so that a client's next request need not wait for that.
_SET_UP = 64
#: Of the running mean of a sample's seconds.
_FADING = 0.1
#: Seconds that what is under way may take at the end before the engine is told to stop.
_ENDING = 30.0


class Room:
    """How many pixels of decoded images the service holds at once."""

    def __init__(self, most: int) -> None:
        """Room for so many."""
        self._lock, self._left, self._most = threading.Lock(), most, most

    @contextmanager
    def hold(self, pixels: int) -> Iterator[None]:
        """Keep some for as long as the block. Raises `Busy` where there is no room for them."""
        with self._lock:
            if pixels > self._left:
                raise Busy(1.0)
            self._left -= pixels
        try:
            yield
        finally:
            with self._lock:
                self._left += pixels


class Line(Closing):
    """An open engine with a thread that feeds it.

    config    how samples are made unless a request says otherwise
    manifest  the engine's
    provider  what it runs on
    """

    def __init__(self, config: SynthesizerConfig, room: int) -> None:
        """Verify and open the configuration's engine; ``room`` is for so many samples at once.

        Raises the errors of `defectrt.engines.loading.open_engine`.
        """
        self.config, self._room = config, room
        self._engine = open_engine(config, room)
        self.manifest, self.provider = self._engine.manifest, self._engine.provider
        self._sha256 = sha256_of((config.engine or BUNDLED_ENGINE) / MANIFEST)
        self._set_up = lru_cache(maxsize=_SET_UP)(self._workshop)
        self._lock, self._closing, self._closed = threading.Lock(), False, False
        self._waiting = deque[tuple[Task[Result], Ticket]]()
        self._tickets = dict[Task[Result], tuple[Ticket, float]]()
        self._seconds, self._last = 1.0, monotonic()
        self._scheduler = Scheduler(self._engine, batch_size=batch_size_of(config, self._engine))
        self._thread = threading.Thread(target=self._run, name="line", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Samples that are under way or wait."""
        with self._lock:
            return len(self._waiting) + len(self._tickets)

    @property
    def rows(self) -> int:
        """Rows that went through the engine's row step."""
        return self._scheduler.stats.rows

    @property
    def is_open(self) -> bool:
        """Whether it takes samples."""
        return self._thread.is_alive() and not self._closing

    def is_stuck(self, seconds: float) -> bool:
        """Whether the engine failed for good, or is at a sample for longer than that."""
        if not self._thread.is_alive():
            return not self._closed
        with self._lock:
            oldest = min((since for _, since in self._tickets.values()), default=monotonic())
        return monotonic() - oldest > seconds

    def check_room(self) -> None:
        """Raise `Busy` or `Stopping`, before anything of a request is read."""
        with self._lock:
            self._check_room()

    def mark(self, config: SynthesizerConfig, files: Mapping[str, bytes], result: Result) -> Mark:
        """What a result says of how it was made, as `defectrt synthesize` has it."""
        mark = Mark.of(
            config,
            engine=self._sha256,
            provider=self.provider,
            source=result.name,
            source_sha256=hashlib.sha256(files["image"]).hexdigest(),
            sample=result.number,
            defect=result.defect,
        )
        given = {"masks"} if "mask" in files else set()
        return mark.model_copy(update={"needs": sorted({*mark.needs, *given})})

    def check(self, config: SynthesizerConfig) -> None:
        """Raise `UsageError` for what the engine cannot do."""
        self._set_up(config)

    def task(self, config: SynthesizerConfig, workpiece: Checked, number: int) -> Task[Result]:
        """A sample to submit. Raises `UsageError` for what the engine cannot do.

        Folders of masks and of examples are read anew: they may have changed.
        """
        is_fresh = config.masks or config.like
        workshop = self._workshop(config) if is_fresh else self._set_up(config)
        return workshop.task(workpiece, number)

    def submit(self, task: Task[Result]) -> Ticket:
        """Take a sample in: its `Result`, when it is ready; cancelled, its rows are freed.

        Raises `Busy` and `Stopping`.
        """
        ticket: Ticket = Future()
        ticket.add_done_callback(partial(self._leave, task))
        with self._lock:
            self._check_room()
            self._waiting.append((task, ticket))
        self._scheduler.wake()
        return ticket

    def close(self) -> None:
        """Finish what is under way, then free the engine; one that hangs is told to stop."""
        self._closing = self._closed = True
        self._scheduler.wake()
        self._thread.join(_ENDING)
        if self._thread.is_alive():
            self._engine.stop()
            self._thread.join(_ENDING)
        self._engine.close()

    def _workshop(self, config: SynthesizerConfig) -> Workshop:
        return Workshop(self._engine, config)

    def _check_room(self) -> None:
        if not self.is_open:
            raise Stopping("the service is about to end")
        taken = len(self._waiting) + len(self._tickets)
        if taken >= self._room:
            raise Busy(self._seconds * taken)

    def _leave(self, task: Task[Result], ticket: Ticket) -> None:
        if ticket.cancelled():
            task.cancel()
            with self._lock, suppress(ValueError):
                self._waiting.remove((task, ticket))

    def _tasks(self) -> Iterator[Task[Result] | None]:
        while True:
            with self._lock:
                closing = self._closing
                task, ticket = self._waiting.popleft() if self._waiting else (None, None)
                if task and ticket:
                    self._tickets[task] = ticket, monotonic()
            if task is None and closing:
                return
            yield task

    def _run(self) -> None:
        try:
            for task in self._scheduler.run(self._tasks()):
                with self._lock:
                    ticket, since = self._tickets.pop(task)
                    now = monotonic()  # between two samples, but for the time without any
                    self._seconds += _FADING * (now - max(since, self._last) - self._seconds)
                    self._last = now
                _settle(ticket, task)
        except BaseException:
            self._fail()
            raise

    def _fail(self) -> None:
        """Nothing more comes out: whoever waits is told."""
        with self._lock:
            self._closing = True
            left = [ticket for ticket, _ in self._tickets.values()]
            left += [ticket for _, ticket in self._waiting]
            self._tickets.clear()
            self._waiting.clear()
        for ticket in left:
            if ticket.set_running_or_notify_cancel():
                ticket.set_exception(EngineError("the engine failed for good"))


def _settle(ticket: Ticket, task: Task[Result]) -> None:
    if not ticket.set_running_or_notify_cancel():
        return
    try:
        ticket.set_result(task.result())
    except Exception as error:
        ticket.set_exception(error)
