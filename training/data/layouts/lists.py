"""The small lists that come with datasets."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from defectrt.errors import InputError
from defectrt.files import read_input

__all__ = ["read_csv", "read_list"]

#: VisA's largest is under 1 MiB.
_MAX_LIST = 16 << 20


def read_csv(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """The rows of a CSV file, or none without a file. Raises `InputError` if it lacks a column."""
    if not path.is_file():
        return []
    try:
        rows = list(csv.DictReader(io.StringIO(read_list(path).decode("utf-8-sig"), newline="")))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV file that can be read ({error})") from error
    if any(row.get(column) is None for row in rows for column in columns):
        raise InputError(f"{path}: expected a CSV file with the columns {', '.join(columns)}")
    return rows


def read_list(path: Path) -> bytes:
    """All of a list. Raises `InputError` for one that cannot be read or is no small file."""
    return read_input(path, _MAX_LIST)
