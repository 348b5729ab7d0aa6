"""Jobs over a folder: the command line's own, each a process, so that they survive the service.

A job is a folder: what was asked for (``ask.json``), what became of it (``end.json``) and the
dataset (``dataset``). One without an end goes on when the service starts again.
"""

from __future__ import annotations

import json
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from defectrt.closing import Closing
from defectrt.config.job import JobConfig
from defectrt.config.yaml import write_yaml
from defectrt.errors import Cancelled, InputError
from defectrt.files import parse_json, read_file, write_whole
from defectrt.images.folder import find_files, images_of

from . import worker

__all__ = ["Job", "Jobs", "Status", "as_json"]

Status = Literal["waiting", "running", "done", "partly done", "failed", "cancelled"]
_ASK, _END, _CONFIG, _DATASET = "ask.json", "end.json", "job.yaml", "dataset"
_SAID = "said.txt"
_MAX_BYTES = 1 << 20
#: What an exit code of the command means.
_ENDS: dict[int, Status] = {0: "done", 7: "partly done", Cancelled.exit_code: "cancelled"}
#: Letters of what a process said last that clients get.
_LAST = 2000


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

    def __init__(self, folder: Path, images: Mapping[str, Path], engine: Mapping[str, Any]) -> None:
        """Goes on with what is not over. ``engine`` are the options of its area, for every job.

        Raises `InputError` for a folder of images that is none.
        """
        for name, path in images.items():
            if not path.is_dir():
                raise InputError(f"--images {name}={path}: no such folder")
        self._folder, self._images, self._engine = folder, dict(images), dict(engine)
        folder.mkdir(parents=True, exist_ok=True)
        self._changed = threading.Condition()
        self._process: tuple[str, subprocess.Popen[str]] | None = None
        self._state = dict[str, int]()
        self._closing = False
        self._waiting = [path.name for path in self._all() if not (path / _END).exists()]
        self._thread = threading.Thread(target=self._run, name="jobs", daemon=True)
        self._thread.start()

    def submit(self, images: str, options: Mapping[str, Any]) -> Job:
        """Begin a job on a folder of images by its name.

        Raises `UsageError` for options that are not possible, `InputError` for a folder that is
        not known.
        """
        if images not in self._images:
            known = ", ".join(sorted(self._images))
            raise InputError(f"images {images!r}: not known here; there are {known}")
        identity = secrets.token_hex(8)
        place = self._folder / identity
        config = JobConfig(
            **{**options, **self._engine, "images": self._images[images]}, out=place / _DATASET
        )
        asked = config.count * len(images_of(find_files(config.images)))
        place.mkdir()
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
        ask = parse_json(read_file(place / _ASK, _MAX_BYTES), identity)
        state: dict[str, Any] = {"status": "waiting"}
        if (place / _END).exists():
            state = parse_json(read_file(place / _END, _MAX_BYTES), identity)
        elif self._process and self._process[0] == identity:
            state = {"status": "running"} | self._state
        return Job(identity, **(ask | state))

    def all(self) -> list[Job]:
        """Every job there is."""
        return [self.job(path.name) for path in self._all()]

    def cancel(self, identity: str) -> Job:
        """End a job; what it finished stays. Raises `KeyError` if there is none of that name."""
        place = self._place(identity)
        with self._changed:
            if identity in self._waiting:
                self._waiting.remove(identity)
                self._end(place, "cancelled", "")
            elif self._process and self._process[0] == identity:
                self._process[1].send_signal(signal.SIGTERM)
        return self.job(identity)

    def close(self) -> None:
        """Stop the job that runs after the samples at hand; the next start goes on with it."""
        with self._changed:
            self._closing = True
            if self._process:
                self._process[1].send_signal(signal.SIGTERM)
            self._changed.notify_all()
        self._thread.join()

    def _all(self) -> Iterator[Path]:
        return iter(sorted(p.parent for p in self._folder.glob(f"*/{_ASK}")))

    def _place(self, identity: str) -> Path:
        place = self._folder / identity
        if not identity.isalnum() or not (place / _ASK).is_file():
            raise KeyError(identity)
        return place

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if self._closing:
                    return
                identity = self._waiting.pop(0)
                place = self._folder / identity
                words = [sys.executable, "-m", worker.__name__, str(place / _CONFIG)]
                with (place / _SAID).open("w") as said:
                    process = subprocess.Popen(
                        words,
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.PIPE,
                        stderr=said,
                        text=True,
                    )
                self._process, self._state = (identity, process), {}
            assert process.stdout
            for line in process.stdout:
                state = json.loads(line)
                self._state = {"done": state["done"], "kept": state["kept"]}
            process.wait()
            with self._changed:
                self._process = None
                status = _ENDS.get(process.returncode, "failed")
                if not (self._closing and status == "cancelled"):
                    message = "" if status in ("done", "cancelled") else self._told(place / _SAID)
                    self._end(place, status, message, **self._state)

    def _told(self, file: Path) -> str:
        """What a process said last, without the server's paths."""
        said = file.read_text(errors="replace")[-_LAST:]
        for path in (self._folder, *self._images.values()):
            for form in (str(path.resolve()), str(path)):
                said = said.replace(f"{form}/", "").replace(form, "")
        return said.strip()

    @staticmethod
    def _end(place: Path, status: Status, message: str, **state: int) -> None:
        text = json.dumps({"status": status, "message": message} | state)
        write_whole(place / _END, text.encode())


def as_json(job: Job) -> dict[str, Any]:
    """A job for clients."""
    return asdict(job)
