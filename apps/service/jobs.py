"""Jobs over a folder: the command line's own, each a process, so that they survive the service.

A job is a folder: what was asked for (``ask.json``), what became of it (``end.json``), what its
process said (``said.txt``) and the dataset (``dataset``). One without an end goes on when the
service starts again.
"""

from __future__ import annotations

import json
import re
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from defectrt.closing import Closing
from defectrt.config.engine import EngineConfig
from defectrt.config.job import JobConfig
from defectrt.config.yaml import write_yaml
from defectrt.errors import InputError, OutputError, PartialError
from defectrt.files import parse_json, read_file, write_whole
from defectrt.images.folder import find_files, images_of

from . import worker
from .errors import Busy, without_paths

__all__ = ["Job", "Jobs", "Status", "as_json"]

Status = Literal["waiting", "running", "done", "partly done", "failed", "cancelled"]
_ASK, _END, _CONFIG, _DATASET = "ask.json", "end.json", "job.yaml", "dataset"
_SAID = "said.txt"
_MAX_BYTES = 1 << 20
#: What an exit code of the command means.
_ENDS: dict[int, Status] = {0: "done", PartialError.exit_code: "partly done"}
#: Letters of an error that clients get.
_LONGEST = 2000
#: Jobs that may wait; seconds after which to try again.
_MOST, _LATER = 100, 60.0
_IDENTITY = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Job:
    """A job as clients see it.

    id        its name, in no order that could be guessed
    images    the name of the folder of good images
    options   of ``defectrt synthesize``, as they were given
    status    what became of it so far
    asked     samples that were asked for
    done      samples that are settled
    kept      samples that are in the dataset
    message   what was wrong, if so
    """

    id: str
    images: str
    options: dict[str, Any]
    status: Status
    asked: int
    done: int = 0
    kept: int = 0
    message: str = ""

    @property
    def is_over(self) -> bool:
        """Whether nothing more will become of it."""
        return self.status not in ("waiting", "running")


class Jobs(Closing):
    """All jobs below a folder; one at a time runs, as each takes all cores."""

    def __init__(self, folder: Path, images: Mapping[str, Path]) -> None:
        """Goes on with what is not over. Raises `InputError` for a folder of images that is none,
        `OutputError` for a ``folder`` that cannot be made.
        """
        for name, path in images.items():
            if not path.is_dir():
                raise InputError(f"--images {name}={path}: no such folder")
        self._folder = folder.resolve()
        self._images = {name: path.resolve() for name, path in images.items()}
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"--jobs {folder}: cannot be made ({error.strerror})") from error
        self._changed = threading.Condition()
        self._running: _Running | None = None
        self._closing = False
        self._waiting = [place.name for place in self._places() if not (place / _END).exists()]
        self._thread = threading.Thread(target=self._run, name="jobs", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether jobs are worked on."""
        return self._thread.is_alive()

    def submit(self, images: str, options: Mapping[str, Any], engine: EngineConfig) -> Job:
        """Begin a job on a folder of images by its name, with an engine as that is configured.

        Raises `UsageError` for options that are not possible, `InputError` for a folder that is
        not known, `Busy` where too many wait.
        """
        if images not in self._images:
            known = ", ".join(sorted(self._images))
            raise InputError(f"images {images!r}: not known here; there are {known}")
        with self._changed:
            if len(self._waiting) >= _MOST:
                raise Busy(_LATER)
        identity = secrets.token_hex(8)
        place = self._folder / identity
        given = {name: getattr(engine, name) for name in engine.model_fields_set}
        config = JobConfig(
            **dict(options) | given | {"images": self._images[images], "out": place / _DATASET}
        )
        asked = config.count * len(images_of(find_files(config.images)))
        text = write_yaml(config.model_dump(mode="json", by_alias=True, exclude_unset=True))
        write_whole(place / _CONFIG, text.encode())
        ask = {"images": images, "options": dict(options), "asked": asked}
        write_whole(place / _ASK, json.dumps(ask).encode())
        with self._changed:
            self._waiting.append(identity)
            self._changed.notify_all()
        return self.job(identity)

    def job(self, identity: str) -> Job:
        """One job. Raises `KeyError` if there is none of that name."""
        place = self._place(identity)
        running = self._running
        state: dict[str, Any] = {"status": "waiting"}
        try:
            ask = parse_json(read_file(place / _ASK, _MAX_BYTES))
            if (place / _END).exists():
                state = parse_json(read_file(place / _END, _MAX_BYTES))
            elif running and running.identity == identity:
                state = {"status": "running"} | running.state
            return Job(identity, **(ask | state))
        except (TypeError, ValueError):
            return Job(identity, "", {}, "failed", 0, message="its files are damaged")

    def all(self) -> list[Job]:
        """Every job there is, in the order in which they were begun."""
        return [self.job(place.name) for place in self._places()]

    def cancel(self, identity: str) -> Job:
        """End a job; what it finished stays. Raises `KeyError` if there is none of that name."""
        place = self._place(identity)
        with self._changed:
            if identity in self._waiting:
                self._waiting.remove(identity)
                _end(place, "cancelled")
            elif self._running and self._running.identity == identity:
                self._running.is_cancelled = True
                self._running.process.send_signal(signal.SIGTERM)
        return self.job(identity)

    def close(self) -> None:
        """Stop the job that runs after the samples at hand; the next start goes on with it."""
        with self._changed:
            self._closing = True
            if self._running:
                self._running.process.send_signal(signal.SIGTERM)
            self._changed.notify_all()
        self._thread.join()

    def _places(self) -> list[Path]:
        asks = [p for p in self._folder.glob(f"*/{_ASK}") if _IDENTITY.fullmatch(p.parent.name)]
        return [path.parent for path in sorted(asks, key=lambda path: path.stat().st_mtime_ns)]

    def _place(self, identity: str) -> Path:
        place = self._folder / identity
        if not _IDENTITY.fullmatch(identity) or not (place / _ASK).is_file():
            raise KeyError(identity)
        return place

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if self._closing:
                    return
                running = self._running = _Running(self._folder / self._waiting.pop(0))
            message = running.follow()
            with self._changed:
                status = _ENDS.get(running.process.wait())
                if status is None and running.is_cancelled:
                    status, message = "cancelled", ""
                if status or not self._closing:
                    _end(running.place, status or "failed", self._told(message), **running.state)
                self._running = None

    def _told(self, message: str) -> str:
        return without_paths(message, [self._folder, *self._images.values()])[:_LONGEST]


class _Running:
    """The process of a job.

    state         how far it is
    is_cancelled  whether a client wants its end
    """

    def __init__(self, place: Path) -> None:
        """Start it; signals of the service's terminal do not reach it."""
        self.place, self.identity = place, place.name
        self.state: dict[str, int] = {}
        self.is_cancelled = False
        with (place / _SAID).open("w") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-m", worker.__name__, str(place / _CONFIG)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
                start_new_session=True,
            )

    def follow(self) -> str:
        """Until its end; returns what was wrong."""
        message = "its process ended; see the service's folder of jobs"
        assert self.process.stdout
        for line in self.process.stdout:
            told = json.loads(line)
            message = told.pop("message", message)
            self.state |= told
        return "" if self.process.wait() == 0 else message


def _end(place: Path, status: Status, message: str = "", **state: int) -> None:
    text = json.dumps({"status": status, "message": message} | state)
    write_whole(place / _END, text.encode())


def as_json(job: Job) -> dict[str, Any]:
    """A job for clients."""
    return asdict(job)
