"""What the service refuses, and how an error is told to a client: without the server's paths."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

__all__ = ["Busy", "Refused", "Stopping", "TooLargeError", "without_paths"]

#: The folders of an absolute path, or of one on Windows; what follows is the file's own name.
_FOLDERS = re.compile(r"(?<![\w/.])(?:[A-Za-z]:)?[/\\](?:[^/\\\s:;,'\"()]+[/\\])+")


class Refused(Exception):  # noqa: N818 - a state rather than a fault
    """What the service does not take now, or not at all; told to clients, never to its user."""


class TooLargeError(Refused):
    """A body or an image is larger than the service takes."""


class Busy(Refused):
    """No room for a further sample; ``seconds`` until there is some, about."""

    def __init__(self, seconds: float) -> None:
        """Said to the client as Retry-After."""
        super().__init__("the service is full; try again later")
        self.seconds = seconds


class Stopping(Refused):
    """The service is about to end, and takes nothing more."""


def without_paths(text: str, folders: Iterable[Path] = ()) -> str:
    """A text in which files are called by their names alone, or by their place in ``folders``."""
    for folder in sorted(folders, key=lambda path: -len(str(path))):
        text = text.replace(f"{folder}/", "").replace(f"{folder}\\", "")
        text = text.replace(str(folder), folder.name)
    return _FOLDERS.sub("", text)
