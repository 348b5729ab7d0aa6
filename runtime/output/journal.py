"""The journal of a job: what was asked for, and what became of every sample so far.

A SQLite file, so that a line is there whole or not at all, whatever happens to the process or
the power. One process at a time: the file stays locked while the journal is open, and the
system frees the lock of a process that died.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from ..closing import Closing
from ..errors import InputError, OutputError
from ..files import ADVICE, leaves, parse_json

__all__ = [
    "ASKED",
    "FILES",
    "JOURNAL",
    "Journal",
    "JournalEntry",
    "State",
    "asked_types",
    "read_entries",
]

JOURNAL = "job.sqlite"
#: What of a job may grow: the shares of the types of defect that each run asked for, a list.
ASKED = "defect"
#: Files of a sample, by their keys in its record.
FILES = ("image", "label", "mask", "good")
#: Of the table; another one is refused.
_VERSION = 3
#: "dfrt": for programs that tell files by their content.
_APPLICATION = 0x64667274
#: Seconds to wait for another process: a moment, in which a dying one lets go; or for ever.
_MOMENT, _FOR_EVER = 1.0, 1e6

_TABLES = (
    "CREATE TABLE job (record TEXT NOT NULL)",
    """CREATE TABLE sample (
        image INTEGER, number INTEGER, defect TEXT NOT NULL, source TEXT NOT NULL,
        state TEXT NOT NULL, reason TEXT NOT NULL,
        tries INTEGER NOT NULL, rejected INTEGER NOT NULL, seconds REAL NOT NULL,
        record TEXT NOT NULL, files TEXT NOT NULL, PRIMARY KEY (image, number, defect)
    ) WITHOUT ROWID""",
    f"PRAGMA application_id = {_APPLICATION}",
    f"PRAGMA user_version = {_VERSION}",
)

#: ``kept`` is in the dataset, ``healthy`` beside it without a defect, ``dropped`` was made and is
#: not, ``refused`` was taken out of it by somebody; ``failed`` could not be made.
State = Literal["kept", "healthy", "dropped", "refused", "failed"]


@dataclass(frozen=True)
class JournalEntry:
    """What became of a sample.

    image     its image's place in the sorted folder
    number    its own among the image's samples
    defect    its type of defect
    source    the image's path under the folder
    reason    why it is not kept
    tries     candidates that were generated for it
    rejected  candidates that were not fit
    seconds   from its beginning to its end; its neighbours share them
    record    its line in the manifest
    files     SHA-256 of what was written for it, by the paths in OUT
    """

    image: int
    number: int
    defect: str
    source: str
    state: State
    reason: str = ""
    tries: int = 0
    rejected: int = 0
    seconds: float = 0.0
    record: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)


_COLUMNS = ", ".join(f.name for f in fields(JournalEntry))


class Journal(Closing):
    """An open journal.

    job   what was asked for, by this run and those before
    """

    job: dict[str, Any]

    def __init__(self, path: Path, job: dict[str, Any], *, wait: bool = False) -> None:
        """Open the journal of ``job``, or begin one.

        A run may ask for more types of defect than those before, see `ASKED`; nothing else of a
        job changes. Raises `OutputError` if another process has it open, unless told to
        ``wait``, or if it cannot be written; `InputError` if it is damaged or another job's, with
        what differs.
        """
        self._path = path
        with self._faults():
            self._db = sqlite3.connect(
                path, timeout=_FOR_EVER if wait else _MOMENT, isolation_level=None
            )
        try:
            self._open(job)
            self._opened = path.stat()
        except BaseException:
            self._db.close()
            raise

    def settled(self, image: int) -> set[tuple[int, str]]:
        """Numbers and types of an image's samples that need not be made again."""
        query = "SELECT number, defect FROM sample WHERE image = ? AND state != 'failed'"
        return set(self._run(query, image))

    def settle(self, *entries: JournalEntry) -> None:
        """Note what became of samples; on disk when this returns."""
        self._run("BEGIN")
        for entry in entries:
            *values, record, files = astuple(entry)
            marks = ", ".join("?" * (len(values) + 2))
            query = f"REPLACE INTO sample ({_COLUMNS}) VALUES ({marks})"
            self._run(query, *values, json.dumps(record), json.dumps(files))
        self._run("COMMIT")

    def check(self) -> None:
        """Raise `OutputError` if the file was removed or replaced since it was opened.

        What is written then would be in no journal, and the next run would not know it.
        """
        try:
            there = os.path.samestat(self._opened, self._path.stat())
        except OSError:
            there = False
        if not there:
            raise OutputError(
                f"{self._path}: was removed or replaced while the job ran; what is written from "
                "here on would be lost. Choose another --out"
            )

    def forget(self, entry: JournalEntry) -> None:
        """Let a sample be made again."""
        query = "DELETE FROM sample WHERE image = ? AND number = ? AND defect = ?"
        self._run(query, entry.image, entry.number, entry.defect)

    def entries(self, state: State) -> Iterator[JournalEntry]:
        """All samples of a state, in order."""
        query = f"SELECT {_COLUMNS} FROM sample WHERE state = ? ORDER BY image, number, defect"
        with self._faults():
            yield from map(_entry, self._db.execute(query, (state,)))

    def count(self, state: State) -> int:
        """Samples in a state."""
        return int(self._run("SELECT count(*) FROM sample WHERE state = ?", state)[0][0])

    def by_type(self, state: State) -> dict[str, int]:
        """Samples in a state, of each type that has any."""
        query = "SELECT defect, count(*) FROM sample WHERE state = ? GROUP BY defect"
        return dict(self._run(query, state))

    def tries(self) -> tuple[int, int]:
        """Candidates that were generated and that were not fit, of all samples."""
        ((tries, rejected),) = self._run("SELECT total(tries), total(rejected) FROM sample")
        return int(tries), int(rejected)

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def _open(self, job: dict[str, Any]) -> None:
        """Take the file for this process alone, with every line on disk before going on."""
        self._run("PRAGMA locking_mode = EXCLUSIVE")
        self._run("PRAGMA journal_mode = WAL")
        self._run("PRAGMA synchronous = FULL")
        self._run("BEGIN IMMEDIATE")
        if self._run("SELECT 1 FROM sqlite_master"):
            self._run("COMMIT")
            self._go_on(job)
            return
        for statement in _TABLES:
            self._run(statement)
        self._run("INSERT INTO job VALUES (?)", json.dumps(job))
        self._run("COMMIT")
        self.job = job

    def _go_on(self, job: dict[str, Any]) -> None:
        """Refuse to go on with anything but the job that was started, and say what differs."""
        ((version,),) = self._run("PRAGMA user_version")
        if version != _VERSION:
            raise InputError(
                f"{self._path}: a journal of version {version}, this program reads {_VERSION}; "
                "choose another --out"
            )
        with self._faults():
            ((text,),) = self._run("SELECT record FROM job")
            before = dict(parse_json(text))
        now = json.loads(json.dumps(job))
        changed = [
            f"{key}: {before.get(key)!r} -> {now.get(key)!r}"
            for key in sorted((before.keys() | now.keys()) - {ASKED})
            if before.get(key) != now.get(key)
        ]
        if changed:
            raise InputError(
                f"{self._path.parent}: was started as another job ({'; '.join(changed)}); "
                "go on with the same options, or choose another --out"
            )
        self.job = before
        known = before.get(ASKED, [])
        if new := [asked for asked in now.get(ASKED, []) if asked not in known]:
            before[ASKED] = sorted(known + new, key=json.dumps)
            self._run("UPDATE job SET record = ?", json.dumps(before))

    def _run(self, query: str, *values: Any) -> list[Any]:
        with self._faults():
            return self._db.execute(query, values).fetchall()

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """SQLite's errors as ours."""
        try:
            yield
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
                raise OutputError(
                    f"{self._path.parent}: another process is writing there; wait for it with "
                    "--wait, or choose another --out"
                ) from error
            raise OutputError(f"{self._path}: cannot be written ({error}); {ADVICE}") from error
        except (sqlite3.DatabaseError, ValueError, TypeError) as error:
            raise InputError(f"{self._path}: damaged ({error}); choose another --out") from error


def read_entries(path: Path) -> list[JournalEntry]:
    """All samples of a journal that nobody writes to, in order; the file stays as it is.

    Raises `InputError` if it cannot be read, or if whoever wrote to it was killed.
    """
    rest = path.with_name(f"{path.name}-wal")
    if rest.exists() and rest.stat().st_size:
        raise InputError(f"{path.parent}: its job was killed; run its command again")
    query = f"SELECT {_COLUMNS} FROM sample ORDER BY image, number, defect"
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?immutable=1", uri=True)) as db:
            return list(map(_entry, db.execute(query)))
    except (sqlite3.Error, ValueError, TypeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); run its command again") from error


def _entry(row: Sequence[Any]) -> JournalEntry:
    *values, record, files = row
    values += dict(parse_json(record)), dict(parse_json(files))
    entry = JournalEntry(*values)
    names = [*entry.files, *(entry.record.get(key, "") for key in FILES)]
    if strange := [name for name in names if leaves(str(name))]:
        raise InputError(f"a journal has {strange[0]!r}, which leads out of the dataset")
    return entry


def asked_types(job: Mapping[str, Any], out: Path) -> set[str]:
    """The types of defect that a job's runs asked for. Raises `InputError` if it does not say."""
    try:
        return {str(name) for shares in job[ASKED] for name in dict(shares)}
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{out}: what was asked for is damaged in its job.json") from None
