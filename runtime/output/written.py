"""A folder in which this program keeps files of its own beside whatever the user keeps there."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from ..errors import InputError, OutputError
from ..files import leaves, parse_json, read_file, unwritable, write_whole
from ..images.types import MAX_BYTES

__all__ = ["WRITTEN", "Content", "copied", "name_of", "write_folder"]

#: The list of what was written, by names in the folder.
WRITTEN = ".defectrt.json"
_MAX_BYTES = 256 << 20
#: What is in a file, made when it is written, so that never all of it is in memory.
Content: TypeAlias = Callable[[], bytes]


def write_folder(folder: Path, files: Mapping[str, Content]) -> None:
    """Have exactly ``files`` in a folder, of those that this program ever wrote into it.

    Files are replaced and removed only if they stand in the folder's list, `WRITTEN`; all others
    are the user's and stay. The list is on disk before a file is written, so that it is true
    whenever the program is killed. Raises `OutputError` if a file of the user's has the name of
    one of ours, before anything is written, or if something cannot be written; `InputError` if
    the list is damaged.
    """
    before = _read(folder / WRITTEN)
    if theirs := sorted(n for n in files.keys() - before if os.path.lexists(folder / n)):
        raise OutputError(
            f"{folder / theirs[0]}: there already, and not written by this program"
            + (f", nor are {len(theirs) - 1} others" if len(theirs) > 1 else "")
            + "; move it elsewhere, or choose another --out"
        )
    _list(folder, before | files.keys())
    for name in sorted(before - files.keys()):
        _remove(folder, name)
    for name, content in files.items():
        write_whole(folder / name, content())
    _list(folder, set(files))


def copied(path: Path) -> bytes:
    """A copy, and no link: who changes the one shall not change the other."""
    return read_file(path, MAX_BYTES)


def name_of(path: str) -> str:
    """The name that an image of the dataset has in a folder of all of them: crack_000."""
    return "_".join(PurePosixPath(path).with_suffix("").parts[-2:])


def _read(path: Path) -> set[str]:
    if not path.is_file():
        return set()
    try:
        names = parse_json(read_file(path, _MAX_BYTES))["files"]
        inside = [n for n in names if not leaves(n)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: damaged ({error}); remove it and what it lists") from error
    if len(inside) < len(names):
        raise InputError(f"{path}: lists files outside its folder; remove it")
    return set(inside)


def _list(folder: Path, names: set[str]) -> None:
    about = "files of defectrt in this folder; all others are left alone"
    text = json.dumps({"about": about, "files": sorted(names)}, indent=1)
    write_whole(folder / WRITTEN, text.encode() + b"\n")


def _remove(folder: Path, name: str) -> None:
    """A file of ours, and the folders that it leaves empty."""
    path = folder / name
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error
    for parent in path.relative_to(folder).parents[:-1]:
        with suppress(OSError):  # not empty
            (folder / parent).rmdir()
