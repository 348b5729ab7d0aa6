"""Files that are there whole or not at all, and what is in them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from .errors import OutputError

__all__ = [
    "ADVICE",
    "PARTIAL",
    "sha256_of",
    "sync_folder",
    "unwritable",
    "write_lines",
    "write_whole",
]

#: Suffix of a file that is being written; its name also starts with a dot.
PARTIAL = ".partial"
#: What to do when a job could not write.
ADVICE = "what is there is whole, run the same command again to go on"


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_whole(path: Path, data: bytes) -> None:
    """Write ``data`` under a temporary name and rename it, making the folders above.

    The data is on disk before it gets its name, so that a file is whole even after power was
    lost. Raises `OutputError` if that cannot be done; the temporary file is then removed.
    """
    write_lines(path, [data])


def write_lines(path: Path, lines: Iterable[bytes]) -> None:
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
        raise unwritable(path, error) from error


def _write(file: BinaryIO, parts: Iterable[bytes]) -> None:
    file.writelines(parts)


def sync_folder(folder: Path) -> None:
    """Have the names of a folder's files on disk, where the system can do that."""
    with suppress(OSError):  # Windows opens no folders; there NTFS keeps a journal of names
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def unwritable(path: Path, error: OSError) -> OutputError:
    """What to say when a file of a job cannot be written."""
    return OutputError(f"{path}: cannot be written ({error.strerror}); {ADVICE}")
