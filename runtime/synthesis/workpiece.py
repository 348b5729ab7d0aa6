"""A good image in memory, where it may get a defect, and what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..config.synthesis import MAX_STRENGTH
from ..errors import InputError
from ..images.given import Picture, in_channels, read_given
from ..images.preview import outlined
from ..images.types import Bits, Mask
from ..masks.reading import given_mask
from ..masks.source import Placed
from .mixed import type_of_all
from .pipeline import Sample, SourceImage

__all__ = ["Checked", "Instance", "Result", "Workpiece"]


@dataclass(frozen=True)
class Workpiece:
    """A good image, and where it may get a defect.

    image   an array [H,W] or [H,W,C], uint8 or uint16; C is 1 grey, 2 grey + alpha, 3 RGB, 4 RGB +
            alpha; or a file's path, or a picture of Pillow's, grey ones as [H,W]
    mask    [H,W], which is read as `defectrt.masks.reading.as_mask` says, or a file's path; without
            it, one that suits the defect type is drawn
    name    decides the noise, together with the configuration's seed and the sample's number; by
            default the name of the file, if it is one
    defect  its type; by default the synthesizer's types take turns: the seed, the name and the
            number decide
    strength
            of its defects, a contrast; by default as the configuration says (see its ``strength``)
    """

    image: Picture
    mask: ArrayLike | str | PathLike[str] | None = None
    name: str = ""
    defect: str | None = None
    strength: float | None = None


@dataclass(frozen=True)
class Instance:
    """One defect of a result: its type, where it was asked for and where it is, each [H,W]."""

    defect: str
    mask: Mask
    label: Mask


@dataclass(frozen=True)
class Result:
    """An image with a defect; in a notebook it shows itself, and beside it its label.

    name, number  of the workpiece, and of the sample among the workpiece's
    defect        its type; ``combined`` if its instances are of several
    seed          the sample's own; with the image, the mask and its strength it makes it again
    image         of the workpiece's shape and type; the workpiece's own bits outside the band
    label         [H,W], where the defect is
    mask          [H,W], where it was asked for
    band          [H,W], where the image may differ from the workpiece's
    instances     its defects, in the order of painting
    figures       see `defectrt.synthesis.pipeline.Pipeline.sample`
    fault         why there is no defect, if so; the image is the workpiece's then
    """

    name: str
    number: int
    defect: str
    seed: int
    image: Bits
    label: Mask
    mask: Mask
    band: Mask
    instances: tuple[Instance, ...]
    figures: dict[str, Any]
    fault: str | None

    def _repr_png_(self) -> bytes:
        return outlined(in_channels(self.image), self.label)


class Checked:
    """A workpiece whose image and mask were read and checked."""

    def __init__(self, workpiece: Workpiece) -> None:
        """Raises `InputError` for what is no image, or no mask for it."""
        mask, name = workpiece.mask, workpiece.name
        if isinstance(workpiece.image, str | PathLike) and not name:
            name = Path(workpiece.image).name
        image = read_given(workpiece.image, f"workpiece {name!r}")
        self._shape, full = image.shape, in_channels(image)
        self.source, self.defect, self.mask = SourceImage(name, full), workpiece.defect, None
        self.strength = workpiece.strength
        if self.strength is not None and not 0 < self.strength <= MAX_STRENGTH:
            raise InputError(
                f"workpiece {name!r}: strength {self.strength}: above 0 and up to {MAX_STRENGTH}"
            )
        if mask is not None:
            self.mask = given_mask(mask, (full.shape[0], full.shape[1]), f"workpiece {name!r}")

    def result(self, sample: Sample, defect: str, placed: Sequence[Placed]) -> Result:
        """A sample as the caller sees it; instances without a type are of ``defect``."""
        instances = tuple(
            Instance(p.defect or defect, p.mask, p.mask & sample.label) for p in placed
        )
        return Result(
            name=self.source.name,
            number=sample.number,
            defect=type_of_all(instance.defect for instance in instances),
            seed=sample.seed,
            image=sample.image.reshape(self._shape),
            label=sample.label,
            mask=np.logical_or.reduce([instance.mask for instance in instances]),
            band=sample.band,
            instances=instances,
            figures=sample.figures,
            fault=sample.fault,
        )

    def without(self, number: int, defect: str, fault: str) -> Result:
        """No sample: there was no place for a defect."""
        nothing = np.zeros(self._shape[:2], bool)
        image = self.source.image.copy().reshape(self._shape)
        name = self.source.name
        return Result(name, number, defect, 0, image, nothing, nothing, nothing, (), {}, fault)
