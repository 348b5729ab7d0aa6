"""Masks from a folder: for every image one of its name."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path, PurePath
from typing import Any

from ..errors import InputError
from ..files import sha256_of
from ..images.folder import find_images
from ..images.types import Bits
from .pieces import pieces
from .placement import paste
from .reading import read_mask
from .source import Placed, digest

__all__ = ["MaskFolder"]


class MaskFolder:
    """A folder of masks, listed once: the mask of a/7.jpg is a/7_mask.png or a/7.png.

    Any suffix of an image will do. Where both names are there, 7_mask counts: the other may be
    the image itself. Raises `InputError` if there is no such folder.
    """

    def __init__(self, folder: Path, gap: int | None = None) -> None:
        """List the folder and everything below; ``gap`` as in `pieces`, None keeps masks whole."""
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder of masks")
        self.folder, self._gap = folder, gap
        self._files: dict[PurePath, list[Path]] = defaultdict(list)
        for path in find_images(folder):
            self._files[path.relative_to(folder).with_suffix("")].append(path)

    def __call__(self, source: str, image: Bits, sample: int) -> list[Placed]:
        """The image's mask, the same for every sample; pieces far apart are several instances."""
        path = self.mask_of(PurePath(source))
        mask = read_mask(path, (image.shape[0], image.shape[1]))
        record = {
            "from": "folder",
            "file": path.relative_to(self.folder).as_posix(),
            "sha256": sha256_of(path),
        }
        parts = pieces(mask, self._gap) if self._gap else []
        if len(parts) < 2:
            return [Placed(mask, record)]
        return [
            Placed(paste(part.shape, part.corner, mask.shape), record | {"piece": i})
            for i, part in enumerate(parts)
        ]

    def record(self) -> dict[str, Any]:
        """The names of all masks; what is in them is recorded with every sample."""
        files = sorted(path for paths in self._files.values() for path in paths)
        names = digest(path.relative_to(self.folder).as_posix() for path in files)
        return {"from": "folder", "files": names}

    def mask_of(self, source: PurePath) -> Path:
        """The mask of an image, ``source`` being its path under the folder of images.

        Raises `InputError` if there is none, or more than one of the same name.
        """
        for stem in (f"{source.stem}_mask", source.stem):
            found = self._files.get(source.with_name(stem), [])
            if len(found) > 1:
                names = ", ".join(path.name for path in found)
                raise InputError(f"{source}: more than one mask: {names}; keep one")
            if found:
                return found[0]
        expected = self.folder / source.parent / f"{source.stem}_mask.png"
        raise InputError(f"{source}: no mask; expected {expected}")
