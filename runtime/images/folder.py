"""Which files of a folder are images."""

from __future__ import annotations

from pathlib import Path

__all__ = ["find_images"]

_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}


def find_images(folder: Path) -> list[Path]:
    """All images below a folder by their suffix, nothing hidden; in the order of their names."""
    inside = {path.relative_to(folder): path for path in folder.rglob("*")}
    images = {
        name.as_posix(): path
        for name, path in inside.items()
        if name.suffix.lower() in _SUFFIXES
        and not any(part.startswith(".") for part in name.parts)
        and path.is_file()
    }
    return [images[name] for name in sorted(images)]
