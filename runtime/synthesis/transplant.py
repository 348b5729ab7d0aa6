"""Defects from examples, untrained: the change that a real defect makes, on another background.

What a defect does to its surface is told from what the surface would look like without it, which is
filled in from around it. The change is a ratio of brightness, channel by channel, so on a darker
surface it is as much smaller; it is turned, mirrored, bent and scaled together with its mask. One
example is enough, and no model paints: adding noise and taking it off again with the bundled engine
only made such a change look less like its example (``docs/decisions/0020-like.md``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil, hypot
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..config.synthesis import SynthesisConfig
from ..diffusion.seeds import sample_seed
from ..errors import InputError
from ..files import sha256_of
from ..images.compositing import composite
from ..images.folder import find_images
from ..images.reading import read_image
from ..images.types import Bits, Mask, Pixels, channel_max, differs, without_alpha
from ..masks.examples import Examples, bent, runs_one_way, turned
from ..masks.pairing import IMAGE_FOLDERS, Names
from ..masks.pieces import pieces, tight
from ..masks.places import look
from ..masks.reading import read_mask
from ..masks.source import Placed, digest
from .pipeline import Sample, SourceImage
from .scheduler import Call, Work
from .strength import brightness_around, strengthened

__all__ = ["Donor", "DonorShapes", "digest_of", "donor_types", "read_donors", "transplanted"]

Rng = np.random.Generator

#: Px around a mask in which a defect still changes its surface, and those over which that ends.
_AROUND, _FADE = 3, 1.0
#: Brightness that counts as much as the defect's where it is dark, so that black has a ratio.
_BLACK = 0.02
#: Radius of what is filled in from, px.
_FILL = 5.0
#: Smallest and largest scale; how far an outline is bent, a share of its size; change of strength.
_SCALE, _BEND, _STRENGTH = (0.8, 1.25), 0.08, 0.15
#: Share of a defect's px that have to differ at all.
_SEEN = 0.3
#: Px between the pieces of a mask from which each has a direction of its own.
_APART = 12
#: Px around a defect in which its surroundings lie.
_RING = 8
#: Degrees that a shape may lean where all examples run one way.
_LEAN = 10.0


@dataclass(frozen=True)
class Donor:
    """A real defect: what it changes [h,w,3], the logarithm of a ratio, and its mask [h,w].

    ``file`` is its image, ``sha256`` that image's; ``files`` changes with the mask's content too.
    """

    change: Pixels
    mask: Mask
    file: str
    sha256: str
    files: str


def donor_types(folder: Path) -> dict[str, list[tuple[str, str]]]:
    """The types of defect in a folder of images with masks: the two names of each, nothing read.

    A type is a folder in it; images right in it, or in a folder of images beside one of masks, are
    of one type, which is called like it. Raises `InputError` for a folder that holds no image with
    a mask.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of examples")
    names = (PurePosixPath(p.relative_to(folder).as_posix()) for p in find_images(folder))
    pairs = list(Names(names).pairs())
    if faults := [f"{folder / p.image}: {p.fault}" for p in pairs if p.fault]:
        raise InputError("\n".join(faults))
    found: dict[str, list[tuple[str, str]]] = {}
    for pair in pairs:
        if pair.mask:
            folders = [p for p in pair.image.parts[:-1] if p.lower() not in IMAGE_FOLDERS]
            name = folders[0] if folders else folder.resolve().name
            found.setdefault(name, []).append((str(pair.image), str(pair.mask)))
    if not found:
        raise InputError(
            f"{folder}: holds no image with a mask; expected NAME.jpg beside NAME_mask.png"
        )
    return dict(sorted(found.items()))


def read_donors(folder: Path) -> dict[str, tuple[list[Donor], Examples]]:
    """The defects of a folder by type, and what they say of places; see `donor_types`.

    Raises `InputError` for files that cannot be read.
    """
    found = {
        name: [_read(folder, image, mask) for image, mask in own]
        for name, own in donor_types(folder).items()
    }
    return {
        name: (
            [donor for *_, donor in own],
            Examples.of(
                [donor.mask for *_, donor in own],
                [],  # a moved defect keeps its own
                directed=runs_one_way([p.shape for _, m, _ in own for p in pieces(m, _APART)]),
                places=look((image, mask) for image, mask, _ in own),
                instances=[1],
            ),
        )
        for name, own in found.items()
    }


def digest_of(donors: Iterable[Donor]) -> str:
    """Changes with any file of any example."""
    return digest(f"{donor.files} {donor.file}" for donor in donors)


class DonorShapes:
    """Shapes of the donors, see `defectrt.masks.sources.Shapes`; each can be made again."""

    def __init__(self, donors: Sequence[Donor], *, directed: bool, folder: str = "") -> None:
        """Where they are ``directed``, they are not turned; ``folder`` stands for all examples."""
        self._donors, self._directed, self._folder = donors, directed, folder

    def __call__(self, rng: Rng, size: tuple[int, int]) -> Any:
        """One donor, warped anew at every scale."""
        number = int(rng.integers(len(self._donors)))
        donor = self._donors[number]

        def make(scale: float) -> tuple[Mask, dict[str, Any]]:
            record = {
                "from": "like",
                "file": donor.file,
                "sha256": donor.sha256,
                "files": donor.files,
                "donor": number,
                "scale": round(scale, 4),
                "shape_seed": int(rng.integers(2**53)),
            }
            return self.again(record)[0], record

        return make

    def again(self, record: dict[str, Any]) -> tuple[Mask, Pixels]:
        """The mask [h,w] of a record, and its change, `_AROUND` px larger on every side."""
        rng = np.random.default_rng(record["shape_seed"])
        low, high = _SCALE
        scale = record["scale"] * float(rng.uniform(low, high))
        angle = rng.uniform(-_LEAN, _LEAN) if self._directed else rng.uniform(0, 360)
        strength = np.float32(1 + rng.uniform(-_STRENGTH, _STRENGTH))
        donor = self._donors[record["donor"]]
        mirrored = slice(None, None, -1 if rng.integers(2) else 1)
        mask, change = donor.mask[:, mirrored], donor.change[:, mirrored]
        reach = _BEND * float(mask.sum()) ** 0.5 * scale
        half = ceil(hypot(*mask.shape) * scale / 2 + reach) + _AROUND + 2
        x, y = bent(half, reach, rng)
        h, w = mask.shape
        from_x, from_y = turned(x, y, angle, scale)
        to_x = (from_x + (w - 1) / 2).astype(np.float32)
        to_y = (from_y + (h - 1) / 2).astype(np.float32)
        covered = cv2.remap(mask.astype(np.float32), to_x, to_y, cv2.INTER_LINEAR) >= 0.5
        if not covered.any():
            covered[half, half] = True
        warped = cv2.remap(change, to_x + _AROUND, to_y + _AROUND, cv2.INTER_LINEAR)
        (rows,), (columns,) = np.nonzero(covered.any(axis=1)), np.nonzero(covered.any(axis=0))
        top, bottom = int(rows[0]) - _AROUND, int(rows[-1]) + 1 + _AROUND
        left, right = int(columns[0]) - _AROUND, int(columns[-1]) + 1 + _AROUND
        return tight(covered), np.asarray(strength * warped[top:bottom, left:right], np.float32)

    def record(self) -> dict[str, Any]:
        """All examples by their content, those of other types too: types may be added later."""
        return {"from": "like", "examples": self._folder}


def transplanted(
    shapes: Mapping[str, DonorShapes],
    config: SynthesisConfig,
    source: SourceImage,
    number: int,
    placed: Sequence[Placed],
) -> Work[Sample]:
    """A sample of transplanted defects; the label is where the example's own mask came to lie.

    ``shapes`` are those of each type of defect that was placed.
    """
    sample: Sample = yield Call("paint", partial(_paint, shapes, config, source, number, placed))
    return sample


def _paint(
    shapes: Mapping[str, DonorShapes],
    config: SynthesisConfig,
    source: SourceImage,
    number: int,
    placed: Sequence[Placed],
) -> Sample:
    image = source.image
    levels = _levels(image)
    moved = np.zeros(levels.shape, np.float32)
    label, band = np.zeros((2, *image.shape[:2]), bool)
    strengths = [0.0]
    for instance in placed:
        _, change = shapes[str(instance.defect)].again(instance.record)
        y, x = (start - _AROUND for start in instance.record["corner"])
        part = np.s_[max(0, y) : y + change.shape[0], max(0, x) : x + change.shape[1]]
        change = change[max(0, -y) :, max(0, -x) :]
        change = change[: moved[part].shape[0], : moved[part].shape[1]]
        added = (levels[part] + _BLACK) * np.exp(change) - _BLACK - levels[part]
        factor, strong = _strengthened(levels, added, part, instance, config.min_change)
        moved[part] += np.float32(factor) * added
        band[part] |= channel_max(change != 0)
        strengths.append(strong)
        label |= instance.mask
    made = composite(image, moved, band.astype(np.float32))
    changed = differs(made, image)
    amount = channel_max(np.abs(moved))
    visibility = float(amount[label].mean())
    fault = None if changed[label].mean() > _SEEN else "the defect cannot be seen there"
    return Sample(
        source=source,
        number=number,
        seed=sample_seed(config.seed, source.name, number),
        image=made,
        label=label,
        band=band,
        figures={
            "tiles": [],
            "mask_area": int(label.sum()),
            "refined_area": int(label.sum()),
            "changed_area": int(changed.sum()),
            "outside_error": 0,
            "latent_outside_error": 0.0,
            "visibility": visibility,
            "strength": max(strengths),
            "coverage": float((amount >= config.min_change)[label].mean()),
            "seam": 0.0,
        },
        tries=1,
        rejected=[fault] if fault else [],
        fault=fault,
    )


def _strengthened(
    levels: Pixels, added: Pixels, part: tuple[slice, slice], instance: Placed, visible: float
) -> tuple[float, float]:
    """By how much to multiply what is added to a part, and how strong the defect is then."""
    rows, columns = part
    wide = np.s_[max(0, rows.start - _RING) : rows.stop + _RING,
                 max(0, columns.start - _RING) : columns.stop + _RING]  # fmt: skip
    mask, here = instance.mask[wide], instance.mask[part]
    seen = levels[wide].mean(axis=2)
    return strengthened(
        levels[part][here].mean(axis=1),
        added[here].mean(axis=1),
        brightness_around(seen, mask, np.ones(mask.shape, bool)),
        wanted=instance.strength,
        visible=visible,
    )


def _read(folder: Path, image: str, mask: str) -> tuple[Bits, Mask, Donor]:
    bits = read_image(folder / image)
    where = read_mask(folder / mask, (bits.shape[0], bits.shape[1]))
    size = np.ones((2 * _AROUND + 1,) * 2)
    reach = np.asarray(cv2.dilate(where.astype(np.uint8), size), np.uint8)
    levels = _levels(bits)
    filled = _filled(levels, reach)
    weight = cv2.GaussianBlur(cv2.erode(reach, np.ones((3, 3))).astype(np.float32), (0, 0), _FADE)
    change = np.log((levels + _BLACK) / (filled + _BLACK)) * weight[..., None] * reach[..., None]
    padded = np.pad(change, ((_AROUND, _AROUND), (_AROUND, _AROUND), (0, 0)))
    (rows,), (columns,) = np.nonzero(where.any(axis=1)), np.nonzero(where.any(axis=0))
    part = padded[rows[0] : rows[-1] + 1 + 2 * _AROUND, columns[0] : columns[-1] + 1 + 2 * _AROUND]
    sha256 = sha256_of(folder / image)
    files = digest([sha256, sha256_of(folder / mask)])
    return bits, where, Donor(part.astype(np.float32), tight(where), image, sha256, files)


def _filled(levels: Pixels, hidden: NDArray[np.uint8]) -> Pixels:
    """[H,W,3] with what is hidden filled in from around it."""
    deep = np.rint(levels * np.float32(65535)).astype(np.uint16)
    planes = (np.ascontiguousarray(deep[..., i]) for i in range(3))
    filled = [cv2.inpaint(p, hidden, _FILL, cv2.INPAINT_TELEA) for p in planes]
    return np.stack(filled, axis=2).astype(np.float32) / np.float32(65535)


def _levels(image: Bits) -> Pixels:
    """[H,W,C] -> [H,W,3] in [0,1], without alpha."""
    colour = without_alpha(image).astype(np.float32) / np.float32(np.iinfo(image.dtype).max)
    return np.asarray(np.broadcast_to(colour, (*colour.shape[:2], 3)), np.float32)
