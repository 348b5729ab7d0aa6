"""Files and folders that are there whole or not at all, and what is in them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from .errors import InputError, OutputError

__all__ = [
    "ADVICE",
    "PARTIAL",
    "first_of",
    "leaves",
    "open_file",
    "parse_json",
    "read_file",
    "read_input",
    "set_aside",
    "sha256_of",
    "sync_folder",
    "tidy",
    "unwritable",
    "write_directory",
    "write_lines",
    "write_whole",
]

#: Suffix of a file that is being written; its name also starts with a dot.
PARTIAL = ".partial"
#: Suffix of a folder that is about to be deleted; its name also starts with a dot.
OLD = ".old"
#: What to do when a job could not write.
ADVICE = "what is there is whole, run the same command again to go on"


def open_file(path: Path) -> BufferedReader:
    """Open a file to be read. Raises `InputError` for what is none: a device or a pipe never ends.

    Raises `OSError` if it cannot be opened.
    """
    # a pipe that nobody writes to would be waited for
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise InputError(f"{path}: not a regular file")
    return os.fdopen(handle, "rb")


def read_file(path: Path, most: int) -> bytes:
    """All of a file, which has no more than ``most`` bytes or is an `InputError`.

    Raises as `open_file` does, and `OSError` if it cannot be read.
    """
    with open_file(path) as file:
        large = os.fstat(file.fileno()).st_size > most
        data = b"" if large else file.read(most + 1)  # more, if it grew meanwhile
    if large or len(data) > most:
        size = f"{most >> 30} GiB" if most >= 1 << 30 else f"{most >> 10} KiB"
        raise InputError(f"{path}: larger than {size}, which is too large for what it should be")
    return data


def read_input(path: Path, most: int) -> bytes:
    """As `read_file`; one that cannot be read is an `InputError` too."""
    try:
        return read_file(path, most)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def parse_json(data: str | bytes) -> Any:
    """What JSON says. Raises `ValueError` for what is none, or is nested too deeply to be read."""
    try:
        return json.loads(data)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal; raises as `open_file` does."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_whole(path: Path, data: bytes, *, advice: str = ADVICE) -> None:
    """Write ``data`` under a temporary name and rename it, making the folders above.

    The data is on disk before it gets its name, so that a file is whole even after power was
    lost. Raises `OutputError` with ``advice`` if that cannot be done; the temporary file is
    then removed.
    """
    write_lines(path, [data], advice=advice)


def write_lines(path: Path, lines: Iterable[bytes], *, advice: str = ADVICE) -> None:
    """`write_whole` for data that comes in parts."""
    partial = path.with_name(f".{path.name}{PARTIAL}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            _write(file, lines)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise unwritable(path, error, advice) from error


def _write(file: BinaryIO, parts: Iterable[bytes]) -> None:
    file.writelines(parts)


def write_directory(final: Path, write: Callable[[Path], object], *, advice: str = ADVICE) -> None:
    """Make the folder ``final``: filled under another name by ``write``, then renamed.

    What was at ``final`` before is replaced, and stays until the new one is on disk. Raises
    `OutputError` with ``advice`` if it cannot be written, and whatever ``write`` raises; nothing
    half written stays behind.
    """
    partial = final.with_name(f".{final.name}{PARTIAL}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        write(partial)
        for path in (*partial.rglob("*"), partial):
            sync_folder(path) if path.is_dir() else _sync(path, os.O_RDWR)
        doomed = set_aside(final)
        partial.rename(final)
        sync_folder(final.parent)
        shutil.rmtree(doomed, ignore_errors=True)
    except OSError as error:
        raise unwritable(final, error, advice) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def set_aside(directory: Path) -> Path:
    """Give a folder a name to be deleted under, so that a kill leaves nothing half there."""
    doomed = directory.with_name(f".{directory.name}{OLD}")
    shutil.rmtree(doomed, ignore_errors=True)
    if directory.exists():
        directory.rename(doomed)
    return doomed


def tidy(directory: Path) -> None:
    """Remove what a killed process left half written, or half deleted, in a folder."""
    for left in (*directory.glob(f".*{PARTIAL}"), *directory.glob(f".*{OLD}")):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Have the names of a folder's files on disk, where the system can do that."""
    with suppress(OSError):  # Windows opens no folders; there NTFS keeps a journal of names
        _sync(folder, os.O_RDONLY)


def _sync(path: Path, flags: int) -> None:
    """Wait until a file or a folder is on the disk."""
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def unwritable(path: Path, error: OSError, advice: str = ADVICE) -> OutputError:
    """What to say when a file cannot be written."""
    return OutputError(f"{path}: cannot be written ({error.strerror or error}); {advice}")


def first_of(names: Sequence[object]) -> str:
    """The first names of many, for a message."""
    return ", ".join(map(str, names[:3])) + (", …" if len(names) > 3 else "")


def leaves(name: str) -> bool:
    """Whether a file's name, as a dataset has it, leads out of the folder that it is in."""
    path = PurePosixPath(name)
    return path.is_absolute() or ".." in path.parts or bool({"\\", ":"} & set(name))
