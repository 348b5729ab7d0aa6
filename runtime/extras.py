"""Optional parts: a command whose packages are missing says which extra brings them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .errors import MissingExtraError

__all__ = ["requires"]


@contextmanager
def requires(extra: str) -> Iterator[None]:
    """Around imports: turn a missing package into `MissingExtraError` with the line to run."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name and error.name.partition(".")[0] == "defectrt":
            raise
        raise MissingExtraError(
            f"this needs the package {error.name}, which is not installed; "
            f"run: pip install 'defectrt[{extra}]'"
        ) from error
