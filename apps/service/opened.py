"""What a service holds open: its engines, its jobs and its counters."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from threading import Lock

from defectrt.closing import Closing
from defectrt.config.engine import EngineConfig
from defectrt.config.job import SynthesizerConfig
from defectrt.errors import UsageError

from .config import ServeConfig
from .jobs import Jobs
from .line import Line, Room
from .metrics import Metrics

__all__ = ["Service"]

#: The name of the service's own engine, for clients that name one.
_OWN = "default"
#: Decoded images of the largest size that are in memory at once, those that wait included.
_IMAGES = 4


class Service(Closing):
    """Everything that is open while a service runs.

    lines    an engine by its name, with what waits for it; the first is the service's own
    room     for decoded images
    jobs     jobs over folders; None where there are none
    metrics  for Prometheus
    """

    def __init__(self, config: ServeConfig, engine: EngineConfig) -> None:
        """Open all engines, and go on with jobs that are not over.

        Raises the errors of opening an engine, `InputError` for a folder that cannot be used and
        `UsageError` for two engines of one name.
        """
        if _OWN in config.engines:
            raise UsageError(f"--also {_OWN}: that is what the service's own engine is called")
        base = SynthesizerConfig(**engine.model_dump(exclude_unset=True))
        configs = {_OWN: base} | {
            name: base.replace(engine=path) for name, path in config.engines.items()
        }
        self.room = Room(_IMAGES * config.max_pixels)
        self.jobs: Jobs | None = None
        self._timeout = config.timeout
        self.lines = dict[str, Line]()
        self._opening, self._queue = Lock(), config.queue
        with ExitStack() as stack:
            for name, own in configs.items():
                self.lines[name] = stack.enter_context(Line(own, config.queue))
            if config.jobs:
                self.jobs = stack.enter_context(Jobs(config.jobs, config.images))
            self._stack = stack.pop_all()
        self.metrics = Metrics(
            lambda: sum(line.waiting for line in self.lines.values()),
            lambda: sum(line.rows for line in self.lines.values()),
        )

    @property
    def is_open(self) -> bool:
        """Whether samples are taken."""
        return all(line.is_open for line in self.lines.values())

    @property
    def is_alive(self) -> bool:
        """Whether no engine hangs or failed for good, and jobs are worked on."""
        stuck = (line.is_stuck(2 * self._timeout) for line in self.lines.values())
        return not any(stuck) and (self.jobs is None or self.jobs.is_alive)

    def check_room(self) -> None:
        """Raise `Busy` or `Stopping` if no engine has room, before anything is read."""
        min(self.lines.values(), key=lambda line: line.waiting).check_room()

    def line(self, name: str | None) -> Line:
        """The engine of a name, by default the first. Raises `UsageError` if there is none."""
        if name is not None and name not in self.lines:
            raise UsageError(f"engine {name!r}: not known here; there are {', '.join(self.lines)}")
        return self.lines[name or _OWN]

    def open(self, name: str, engine: Path) -> Line:
        """Open a further engine under a name. Raises the errors of opening one."""
        with self._opening:
            if name not in self.lines:
                config = self.lines[_OWN].config.replace(engine=engine)
                self.lines[name] = self._stack.enter_context(Line(config, self._queue))
            return self.lines[name]

    def close(self) -> None:
        """Finish what was taken in, and let everything go."""
        self._stack.close()
