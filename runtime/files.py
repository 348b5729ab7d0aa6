"""Files that are there whole or not at all."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from .errors import OutputError

__all__ = ["PARTIAL", "unwritable", "write_whole"]

#: Suffix of a file that is being written; its name also starts with a dot.
PARTIAL = ".partial"


def write_whole(path: Path, data: bytes) -> None:
    """Write ``data`` under a temporary name and rename it, making the folders above.

    Raises `OutputError` if that cannot be done; the temporary file is then removed.
    """
    partial = path.with_name(f".{path.name}{PARTIAL}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(data)
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError) -> OutputError:
    """What to say when a file of a job cannot be written."""
    return OutputError(
        f"{path}: cannot be written ({error.strerror}); what is there is whole, go on with --resume"
    )
