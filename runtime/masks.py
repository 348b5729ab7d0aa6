"""Masks: where a defect may be, and where they come from."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Protocol

import numpy as np

from .errors import InputError
from .images import Bits, Mask, find_pictures, read_picture
from .manifest import hash_file
from .noise import item_id
from .rows import Floats
from .shapes import draw_mask

__all__ = [
    "DrawnMasks",
    "MaskFolder",
    "MaskSource",
    "Placed",
    "digest",
    "latent_mask",
    "read_mask",
    "reduce_mask",
    "sample_seed",
]


@dataclass(frozen=True)
class Placed:
    """One spot of a sample: its mask [H,W], not empty, and how it came about.

    The record goes into the sample's line of the manifest and is enough to make the mask again:
    ``from`` names the kind of source, the rest depends on it (file and hash, or seed, …).
    """

    mask: Mask
    record: dict[str, Any]


class MaskSource(Protocol):
    """Where masks come from: a pure function of its settings, a picture and a sample's number."""

    def __call__(self, source: str, picture: Bits, sample: int) -> list[Placed]:
        """The spots of one sample, at least one; each is a defect of its own in the picture.

        ``source`` is the picture's path under its folder, posix; ``picture`` is [H,W,C]. Raises
        `InputError`, with the reason, if this picture cannot have a mask and is to be skipped.
        """

    def record(self) -> dict[str, Any]:
        """What decides the masks, as plain JSON, for the job's record."""


def sample_seed(seed: int, source: str, sample: int) -> int:
    """A sample's own seed, 64 bits: of the job's seed, the picture's name and its number alone."""
    entropy = [seed % 2**64, item_id(source), sample]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0])


def digest(names: Iterable[str]) -> str:
    """Changes with any of the names or their order."""
    names = list(names)
    data = "\n".join(names).encode(errors="surrogateescape")
    return f"{len(names)}, sha256 {hashlib.sha256(data).hexdigest()[:16]}"


class DrawnMasks:
    """A source of masks that are drawn to suit a kind of defect (see `defectrt.shapes`)."""

    def __init__(self, kind: str, window: int, seed: int) -> None:
        """``window`` is the side that the model sees, in px: it sets the scale."""
        self._kind, self._window, self._seed = kind, window, seed

    def __call__(self, source: str, picture: Bits, sample: int) -> list[Placed]:
        """One spot; ``draw_mask`` with a generator of the recorded seed draws it again."""
        seed = sample_seed(self._seed, source, sample)
        size = picture.shape[0], picture.shape[1]
        mask = draw_mask(self._kind, size, self._window, np.random.default_rng(seed))
        return [Placed(mask, {"from": "drawn", "kind": self._kind, "seed": seed})]

    def record(self) -> dict[str, Any]:
        """The seed and the kind are the job's."""
        return {"from": "drawn"}


class MaskFolder:
    """A folder of masks, listed once: the mask of a/7.jpg is a/7_mask.png or a/7.png.

    Any suffix of a picture will do. Where both names are there, 7_mask counts: the other may be
    the picture itself. Raises `InputError` if there is no such folder.
    """

    def __init__(self, folder: Path) -> None:
        """List the folder and everything below."""
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder of masks")
        self.folder = folder
        self._files: dict[PurePath, list[Path]] = defaultdict(list)
        for path in find_pictures(folder):
            self._files[path.relative_to(folder).with_suffix("")].append(path)

    def __call__(self, source: str, picture: Bits, sample: int) -> list[Placed]:
        """The picture's mask, the same for every sample."""
        path = self.mask_of(PurePath(source))
        mask = read_mask(path, (picture.shape[0], picture.shape[1]))
        record = {
            "from": "folder",
            "file": path.relative_to(self.folder).as_posix(),
            "sha256": hash_file(path).sha256,
        }
        return [Placed(mask, record)]

    def record(self) -> dict[str, Any]:
        """The names of all masks; what is in them is recorded with every sample."""
        files = sorted(path for paths in self._files.values() for path in paths)
        names = digest(path.relative_to(self.folder).as_posix() for path in files)
        return {"from": "folder", "files": names}

    def mask_of(self, source: PurePath) -> Path:
        """The mask of a picture, ``source`` being its path under the folder of pictures.

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


def read_mask(path: Path, size: tuple[int, int]) -> Mask:
    """Read a mask for a picture of ``size`` (H, W); any value but 0 is defect.

    Values are not thresholded in the middle: several datasets encode classes in small numbers.
    A palette counts by its colours, and black is 0. Raises `InputError` for another size or an
    empty mask.
    """
    picture = read_picture(path)
    if picture.shape[:2] != size:
        raise InputError(
            f"{path}: the mask is {picture.shape[1]}x{picture.shape[0]}, "
            f"its picture {size[1]}x{size[0]}"
        )
    colours = picture[..., :-1] if picture.shape[2] in (2, 4) else picture
    mask = np.asarray(colours.any(axis=2))
    if not mask.any():
        raise InputError(f"{path}: the mask is empty")
    return mask


def reduce_mask(mask: Mask, height: int, width: int) -> Mask:
    """[H,W] -> [height,width]: a cell is set if any pixel in it is.

    The cells need not divide the picture evenly; nothing that is set gets lost.
    """
    ys, xs = np.nonzero(mask)
    out = np.zeros((height, width), bool)
    out[ys * height // mask.shape[0], xs * width // mask.shape[1]] = True
    return out


def latent_mask(mask: Mask, height: int, width: int) -> Floats:
    """A window's mask at latent resolution: [S,S] bool -> [1,height,width] float32 in {0,1}."""
    return reduce_mask(mask, height, width).astype(np.float32)[None]
