"""Commands that run in the background, one after another: the command line's own.

A task is a folder: what is run (``task.json``), what it said (``said.txt``) and its exit code
(``end.json``). Its process is its own, so it outlives the page and the studio; one that was killed
goes on when the studio starts again, as every command does when it is given again.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import sleep, time
from typing import Literal

from filelock import FileLock, Timeout

from defectrt.closing import Closing
from defectrt.errors import PartialError
from defectrt.files import parse_json, write_whole

from . import runner
from .runner import END, LOCK, PROCESS, SAID, TASK

__all__ = ["Kind", "Status", "Task", "Tasks"]

Kind = Literal["make", "propose", "learn", "prove"]
Status = Literal["waiting", "running", "done", "partly done", "failed", "stopped"]

#: Written when somebody wants a task's end.
_STOP = "stop"
_IDENTITY = re.compile(r"[0-9a-f]{16}")
#: A line of `defectrt.progress.Progress` where there is no terminal.
_PROGRESS = re.compile(
    r"^(?P<what>[a-z][a-z -]*) (?P<done>\d+)/(?P<total>\d+)(?: (?P<figures>.*))?$"
)
#: Seconds between two looks at what runs; letters of the end of what a command said.
_TICK, _LONGEST = 0.3, 4000


@dataclass(frozen=True)
class Task:
    """A command as the pages see it.

    id           its name
    kind, title  what it is for
    command      as it would be typed
    out          what it writes
    status       what became of it so far
    stage        what it is at, with ``done`` steps of ``total``, and its ``figures``
    began        seconds since 1970, and how many it has run
    said         the end of its words
    """

    id: str
    kind: Kind
    title: str
    command: str
    out: str
    status: Status
    stage: str
    done: int
    total: int
    figures: str
    began: float
    seconds: float
    said: str


class Tasks(Closing):
    """All tasks below a folder; one at a time runs, as each takes all cores."""

    def __init__(self, folder: Path) -> None:
        """Go on with what is not over."""
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="tasks", daemon=True)
        self._thread.start()

    def begin(self, kind: Kind, title: str, arguments: Iterable[str], out: Path) -> Task:
        """Have the program run with these arguments when it is its turn."""
        identity = secrets.token_hex(8)
        task = {
            "kind": kind,
            "title": title,
            "arguments": list(arguments),
            "out": str(out),
            "began": time(),
        }
        write_whole(self._folder / identity / TASK, json.dumps(task).encode())
        with self._changed:
            self._changed.notify_all()
        return self.task(identity)

    def task(self, identity: str) -> Task:
        """One task. Raises `KeyError` if there is none of that name."""
        place = self._folder / identity
        if not _IDENTITY.fullmatch(identity) or not (place / TASK).is_file():
            raise KeyError(identity)
        given = parse_json((place / TASK).read_bytes())
        said = _said(place)
        found = [m for m in map(_PROGRESS.match, said.splitlines()) if m]
        stage, done, total, figures = found[-1].groups() if found else ("", 0, 0, "")
        until = (place / END).stat().st_mtime if (place / END).exists() else time()
        started = (place / PROCESS).stat().st_mtime if (place / PROCESS).exists() else until
        return Task(
            identity,
            given["kind"],
            given["title"],
            shlex.join(["defectrt", *given["arguments"]]),
            given["out"],
            _status(place),
            stage,
            int(done),
            int(total),
            figures or "",
            given["began"],
            until - started,
            said[-_LONGEST:],
        )

    def all(self) -> list[Task]:
        """Every task, the latest first."""
        return [self.task(place.name) for place in reversed(self._places())]

    def stop(self, identity: str) -> Task:
        """End a task as Ctrl-C does; what it finished stays. Raises `KeyError` as `task` does."""
        task = self.task(identity)
        place = self._folder / identity
        if task.status == "waiting":
            write_whole(place / _STOP, b"")
            write_whole(place / END, json.dumps({"code": None}).encode())
        elif task.status == "running":
            write_whole(place / _STOP, b"")
            with suppress(OSError, ValueError):
                os.kill(int((place / PROCESS).read_text()), signal.SIGTERM)
        return self.task(identity)

    def close(self) -> None:
        """Begin nothing more; what runs goes on without the studio."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()

    def _places(self) -> list[Path]:
        found = [p for p in self._folder.glob(f"*/{TASK}") if _IDENTITY.fullmatch(p.parent.name)]
        return [path.parent for path in sorted(found, key=lambda path: path.stat().st_mtime_ns)]

    def _run(self) -> None:
        while not self._closing:
            waiting = [place for place in self._places() if not (place / END).exists()]
            running = [place for place in waiting if _is_held(place)]
            if waiting and not running:
                _start(waiting[0])
            with self._changed:
                if not self._closing:
                    self._changed.wait(_TICK if waiting else None)


def _start(place: Path) -> None:
    """Begin a task and wait until it holds its lock, or is over."""
    process = subprocess.Popen(
        [sys.executable, "-m", runner.__name__, str(place)],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    threading.Thread(target=process.wait, daemon=True).start()  # nothing of it is left behind
    while process.poll() is None and not _is_held(place):
        sleep(_TICK / 3)


def _is_held(place: Path) -> bool:
    """Whether a process is at a task."""
    try:
        with FileLock(place / LOCK, blocking=False):
            return False
    except Timeout:
        return True


def _status(place: Path) -> Status:
    if not (place / END).exists():
        return "running" if _is_held(place) else "waiting"
    if (place / _STOP).exists():
        return "stopped"
    code = parse_json((place / END).read_bytes())["code"]
    ends: dict[int, Status] = {0: "done", PartialError.exit_code: "partly done"}
    return ends.get(code, "failed")


def _said(place: Path) -> str:
    """What the command said so far, the last of it."""
    try:
        return (place / SAID).read_text(errors="replace")[-100_000:]
    except FileNotFoundError:
        return ""
