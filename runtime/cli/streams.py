"""Standard output and standard error, whatever they are connected to."""

from __future__ import annotations

import errno
import io
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from ..errors import OutputError

__all__ = ["Escaping", "open_streams", "written_output"]

#: Of a file that is open, without a name: files of ours have theirs in the message.
_UNWRITTEN = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBADF}


#: What a terminal would obey, or would show in another order than it is: names come from elsewhere.
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


class Escaping:
    """A stream that shows what a terminal would obey; `inner` is the stream itself."""

    def __init__(self, inner: TextIO) -> None:
        """Everything but writing is the stream's own."""
        self.inner = inner

    def write(self, text: str) -> int:
        """Write a text, with all that is to be shown as ``\\x1b`` or ``\\u202e``."""
        return self.inner.write(_OBEYED.sub(_shown, text))

    def writelines(self, lines: Iterable[str]) -> None:
        """Write texts."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        """What the stream has."""
        return getattr(self.inner, name)


def _shown(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def open_streams() -> None:
    """Let any text be printed: without streams nowhere, and escaped where an encoding lacks it.

    So is what a terminal would obey: this is the one place through which all texts go.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # a service, pythonw
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
        if not isinstance(stream, Escaping):
            setattr(sys, name, Escaping(getattr(sys, name)))


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
