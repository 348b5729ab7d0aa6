"""Standard output and standard error, whatever they are connected to."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import OutputError

__all__ = ["open_streams", "written_output"]

#: Of a file that is open, without a name: files of ours have theirs in the message.
_UNWRITTEN = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBADF}


def open_streams() -> None:
    """Let any text be printed: without streams nowhere, and escaped where an encoding lacks it."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # a service, pythonw
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def written_output() -> Iterator[None]:
    """Have all that is printed written at the end. Raises `OutputError` if it cannot be."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except OSError as error:
        if error.filename is not None or error.errno not in _UNWRITTEN:
            raise
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)  # what is left is not tried once more at the end
        os.close(nowhere)
        raise OutputError(f"standard output: cannot be written ({error.strerror})") from error
