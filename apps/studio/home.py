"""The studio's own folder: what was dropped into it, drawn in it and learned in it.

``pictures/NAME``   good pictures that were dropped
``examples/NAME``   defective ones, a folder a type, each beside its mask
``masks/NAME``      masks that were drawn on good pictures, a folder a folder of these
``engines/NAME``    what was learned, ``tasks/ID`` what runs
"""

from __future__ import annotations

import hashlib
import re
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np

from defectrt.config.base import Config
from defectrt.errors import InputError, OutputError
from defectrt.files import leaves, write_whole
from defectrt.images.folder import find_images, images_of
from defectrt.images.png import encode_png, from_base64, to_base64
from defectrt.images.preview import resized, shown
from defectrt.images.reading import image_size, read_image
from defectrt.images.types import Mask
from defectrt.images.window import bounds
from defectrt.masks.reading import read_any_mask
from defectrt.output.instances import as_levels
from defectrt.synthesis.transplant import donor_types

__all__ = ["Drawn", "Home", "drawn_of"]

#: Names that a dropped picture, a set of them and an engine may have.
_NAME = re.compile(r"[\w][\w .()+-]{0,99}")
#: Px up to which a picture is shown without loss; quality of what is larger.
_LOSSLESS, _QUALITY = 2_000_000, 92
#: Pictures of a folder that a page lists.
_LISTED = 1000


class Drawn(Config):
    """What was drawn on a picture: a part of its mask, the left upper corner in px, and a PNG."""

    x: int
    y: int
    png: str

    def mask(self, size: tuple[int, int]) -> Mask:
        """The whole mask [H,W]. Raises `InputError` for a part that is none, or lies outside."""
        part = from_base64(self.png)
        if part is None:
            raise InputError("the drawn mask is no PNG")
        part = part if part.ndim == 2 else part[..., -1]
        height, width = part.shape
        if min(self.x, self.y) < 0 or self.y + height > size[0] or self.x + width > size[1]:
            raise InputError("the drawn mask lies outside of the picture")
        mask = np.zeros(size, bool)
        mask[self.y : self.y + height, self.x : self.x + width] = part > 127
        return mask


def drawn_of(mask: Mask) -> Drawn | None:
    """A mask [H,W] as it might have been drawn; None for an empty one."""
    if not mask.any():
        return None
    y, x = box = bounds(mask)
    part = as_levels([mask[box]])
    return Drawn(
        x=x.start,
        y=y.start,
        png=to_base64(np.asarray(np.repeat(part[..., None], 4, axis=2), np.uint8)),
    )


class Home:
    """The folder and what pages may do with it."""

    def __init__(self, folder: Path, max_pixels: int) -> None:
        """Make it. Raises `OutputError` if that cannot be done."""
        self.folder, self._max_pixels = folder.resolve(), max_pixels
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder}: cannot be made ({error.strerror})") from error

    def below(self, *parts: str) -> Path:
        """A place of the studio's own. Raises `InputError` for names that are none."""
        for part in parts:
            if not _NAME.fullmatch(part) or part.endswith((" ", ".")):
                raise InputError(f"{part!r}: a name has letters, digits, spaces, - and _")
        return self.folder.joinpath(*parts)

    def engines(self) -> dict[str, Path]:
        """What was learned here, by name."""
        return {path.parent.name: path.parent for path in self.folder.glob("engines/*/engine.json")}

    def examples(self) -> list[str]:
        """Sets of defective pictures, by name."""
        return sorted(path.name for path in self.folder.glob("examples/*") if path.is_dir())

    def likes(self) -> dict[str, list[str]]:
        """The types of the sets in which a picture has a mask."""
        found = {}
        for name in self.examples():
            with suppress(InputError):
                found[name] = list(donor_types(self.folder / "examples" / name))
        return found

    def add(self, place: Path, name: str, data: bytes) -> str:
        """Put a dropped picture somewhere; returns its name there.

        Another picture of the same name stays. Raises `InputError` for what is no picture.
        """
        name = PurePosixPath(name.replace("\\", "/")).name
        if not images_of([Path(name)]):
            raise InputError(f"{name}: not read; drop PNG, JPEG, TIFF or BMP")
        target = self.below(name).name
        path, number = place / target, 2
        while path.exists() and path.read_bytes() != data:
            path = place / f"{Path(target).stem}-{number}{Path(target).suffix}"
            number += 1
        write_whole(path, data)
        try:
            self._check_size(path)
        except InputError as error:
            path.unlink()
            raise InputError(str(error).replace(f"{place}", "").lstrip("/\\")) from None
        return path.name

    def remove(self, place: Path, name: str) -> None:
        """Take a dropped picture away again, with its mask."""
        if not place.is_relative_to(self.folder):
            raise InputError("only what was dropped can be taken away")
        self.picture(place, name).unlink()
        self.mask_of(place, name).unlink(missing_ok=True)

    def listing(self, folder: Path) -> dict[str, Any]:
        """The folders in a folder, and the one above it.

        Raises `InputError` for a folder that is none.
        """
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder")
        try:
            folders = sorted(
                path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != "."
            )
        except OSError as error:
            raise InputError(f"{folder}: cannot be listed ({error.strerror})") from error
        return {"path": str(folder), "parent": str(folder.parent), "folders": folders}

    def names(self, folder: Path) -> list[str]:
        """The pictures in a folder and below; of examples, without their masks."""
        found = [path.relative_to(folder).as_posix() for path in find_images(folder)]
        if self.masks(folder) != folder:
            return found
        return [name for name in found if not name.endswith("_mask.png")]

    def pictures(self, folder: Path) -> dict[str, Any]:
        """The pictures in a folder and below, and of which a mask was drawn."""
        found = self.names(folder)
        names = found[:_LISTED]
        drawn = [name for name in names if self.mask_of(folder, name).exists()]
        return {
            "folder": str(folder),
            "names": names,
            "total": len(found),
            "drawn": drawn,
            "masks": str(self.masks(folder)),
        }

    def picture(self, folder: Path, name: str) -> Path:
        """The path of a picture. Raises `InputError` for one that leads out of its folder."""
        if leaves(name) or not images_of([Path(name)]):
            raise InputError(f"{name}: no picture of the folder")
        return folder / name

    def view(self, path: Path, side: int | None) -> tuple[bytes, str]:
        """A picture as browsers show it, of at most ``side`` px a side, and its kind."""
        self._check_size(path)
        image = read_image(path)
        seen = shown(image, image)
        if side:
            seen = resized(seen, side)
        if seen.shape[0] * seen.shape[1] <= _LOSSLESS:
            return encode_png(seen), "image/png"
        stored = seen if seen.shape[-1] == 1 else cv2.cvtColor(seen, cv2.COLOR_RGB2BGR)
        options = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
        return bytes(cv2.imencode(".jpg", stored, options)[1]), "image/jpeg"

    def masks(self, folder: Path) -> Path:
        """Where masks of a folder's pictures lie: examples' beside them, as `learn` reads them."""
        if folder.is_relative_to(self.folder / "examples"):
            return folder
        digest = hashlib.sha256(str(folder).encode()).hexdigest()[:8]
        return self.folder / "masks" / f"{folder.name}-{digest}"

    def mask_of(self, folder: Path, name: str) -> Path:
        """Where the mask of a picture lies, if there is one."""
        return self.masks(folder) / PurePosixPath(name).with_suffix("").with_name(
            f"{PurePosixPath(name).stem}_mask.png"
        )

    def draw(self, folder: Path, name: str, drawn: Drawn | None) -> None:
        """Keep what was drawn on a picture; nothing takes its mask away."""
        size = self._check_size(self.picture(folder, name))
        path = self.mask_of(folder, name)
        if drawn is None:
            path.unlink(missing_ok=True)
            return
        write_whole(path, encode_png(as_levels([drawn.mask(size)])))

    def drawn(self, folder: Path, name: str) -> Drawn | None:
        """What was drawn on a picture, or proposed for it."""
        path = self.mask_of(folder, name)
        if not path.is_file():
            return None
        return drawn_of(read_any_mask(path))

    def _check_size(self, path: Path) -> tuple[int, int]:
        height, width = image_size(path)
        if height * width > self._max_pixels:
            raise InputError(f"{path}: {width}x{height}; up to {self._max_pixels} px here")
        return height, width
