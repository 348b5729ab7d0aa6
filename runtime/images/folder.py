"""Which files of a folder are images, and which only look like some."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from ..errors import InputError
from ..files import first_of

__all__ = ["find_files", "find_images", "images_of", "left_out", "left_out_note"]

#: What is listed; what a file is, its content says.
_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"})
#: What people take for images as well, and nothing here reads.
_OTHER_SUFFIXES = frozenset(
    {".avif", ".dcm", ".dng", ".exr", ".gif", ".heic", ".heif", ".j2k", ".jfif", ".jp2", ".jpe"}
    | {".jxl", ".pbm", ".pgm", ".pnm", ".ppm", ".psd", ".tga", ".webp"}
)
#: Folders that archives leave behind.
_NOT_LISTED = frozenset({"__MACOSX"})


def find_files(folder: Path) -> list[Path]:
    """All files in a folder and everything below, in the order of their names.

    Linked folders are followed, but not back to where they are linked from. What is hidden (a
    name with a dot before it) is passed over, and what lies in ``__MACOSX``. Raises `InputError` if
    there is no such folder, or one below that cannot be listed.
    """
    return sorted(_files(folder, frozenset()), key=lambda path: path.relative_to(folder).as_posix())


def find_images(folder: Path) -> list[Path]:
    """The images among `find_files`, by their suffix."""
    return images_of(find_files(folder))


def images_of(files: Iterable[Path]) -> list[Path]:
    """The images among files, by their suffix."""
    return [path for path in files if path.suffix.lower() in _SUFFIXES]


def left_out(files: Iterable[Path]) -> list[Path]:
    """Files that look like images, but are in a format that is not read."""
    return [path for path in files if path.suffix.lower() in _OTHER_SUFFIXES]


def left_out_note(files: Iterable[Path]) -> str | None:
    """One line on all files that `left_out` finds, each once; None if there are none."""
    paths = list(dict.fromkeys(left_out(files)))
    if not paths:
        return None
    told = "files are not read, as they are not PNG, JPEG, TIFF or BMP"
    return f"{len(paths)} {told}: {first_of(paths)}"


def _files(folder: Path, above: frozenset[Path]) -> Iterator[Path]:
    """``above`` are the folders that this one lies in, where links lead."""
    try:
        real = folder.resolve(strict=True)
        entries = list(folder.iterdir())
    except FileNotFoundError as error:
        raise InputError(f"{folder}: no such folder") from error
    except OSError as error:
        raise InputError(f"{folder}: cannot be listed ({error.strerror})") from error
    if real in above:
        return
    for path in entries:
        if path.name.startswith(".") or path.name in _NOT_LISTED:
            continue
        if path.is_dir():
            yield from _files(path, above | {real})
        elif (
            path.is_file() or path.is_symlink()
        ):  # one that leads nowhere is missed, not passed over
            yield path
