"""Masks from a folder: for every image one of its name."""

from __future__ import annotations

from pathlib import Path, PurePath, PurePosixPath
from typing import Any

from ..errors import InputError
from ..files import sha256_of
from ..images.folder import find_images
from ..images.types import Bits
from .pairing import Names
from .pieces import pieces
from .placement import paste
from .reading import read_mask
from .source import Placed, digest

__all__ = ["MaskFolder"]


class MaskFolder:
    """A folder of masks, listed once: the mask of a/7.jpg is a/7_mask.png or a/7.png.

    Any suffix of an image will do; what counts first, `defectrt.masks.pairing` says. Raises
    `InputError` if there is no such folder.
    """

    def __init__(self, folder: Path, gap: int | None = None) -> None:
        """List the folder and everything below; ``gap`` as in `pieces`, None keeps masks whole."""
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder of masks")
        self.folder, self._gap = folder, gap
        self._files = [PurePosixPath(p.relative_to(folder).as_posix()) for p in find_images(folder)]
        self._names = Names(self._files)

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
        return {"from": "folder", "files": digest(map(str, self._files))}

    def mask_of(self, source: PurePath) -> Path:
        """The mask of an image, ``source`` being its path under the folder of images.

        Raises `InputError` if there is none, or more than one of the same name.
        """
        name = PurePosixPath(source.as_posix())
        pair = self._names.pair(name, name.parent)
        if pair.fault:
            raise InputError(f"{source}: {pair.fault}")
        if pair.mask:
            return self.folder / pair.mask
        expected = self.folder / source.parent / f"{source.stem}_mask.png"
        raise InputError(f"{source}: no mask; expected {expected}")
