"""The source of masks that a configuration asks for: from a folder, a bank, or drawn; placed."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import exp, log
from threading import Lock
from typing import Any, Protocol

import numpy as np

from ..config.masks import ANYWHERE, DRAWN, FOREGROUND, MaskConfig
from ..diffusion.seeds import sample_seed
from ..errors import InputError, UsageError
from ..images.types import Bits, Mask
from .bank import BankEntry, read_bank, transplant
from .examples import ExampleRegions, Examples, ExampleShapes
from .folder import MaskFolder
from .placement import TRIES, grow, paste, place
from .places import LikeExamples
from .regions import (
    Everywhere,
    Foreground,
    Region,
    RegionFile,
    RegionFolder,
    RegionSource,
)
from .registration import Golden
from .shapes import draw_shape
from .source import MaskSource, Placed, digest

__all__ = [
    "BankShapes",
    "DrawnShapes",
    "LimitedMasks",
    "PlacedMasks",
    "Shapes",
    "SizedShapes",
    "open_masks",
    "place_all",
    "place_shapes",
]

Rng = np.random.Generator


Size = tuple[int, int]


#: Of a mask from the bank, unless said otherwise.
_BANK_SCALE = (0.8, 1.25)
#: A shape at a scale, and what the manifest says of it.
Make = Callable[[float], tuple[Mask, dict[str, Any]]]


def open_masks(
    config: MaskConfig,
    defect_type: str,
    *,
    window: int | None,
    seed: int,
    band: int,
    examples: Examples | None = None,
) -> MaskSource:
    """The source for a type of defect.

    ``window`` is the side that the model sees, in px, None for all of an image: then a mask is one
    instance, whatever its pieces. ``band`` is the width of the soft border around a mask;
    ``examples`` are those that the engine was learned from, whose shapes are the first choice. Each
    type draws shapes and places of its own from one ``seed``. Raises `InputError` for folders and
    files that cannot be used, `UsageError` for a size of masks that stay as they are.
    """
    gap = max(window // 4, 2 * band + 1) if window else None
    if config.masks:
        regions = _open_regions(config, examples)
        folder = MaskFolder(config.masks, gap)
        return folder if isinstance(regions, Everywhere) else LimitedMasks(folder, regions)
    shapes = _open_shapes(config, defect_type, window=window, gap=gap, examples=examples)
    if config.size:
        if isinstance(shapes, ExampleRegions):
            raise UsageError(
                "size: masks of this engine are regions of the whole image, where its examples "
                "have them; leave it out, or choose a shape"
            )
        shapes = SizedShapes(shapes, config.size)
    return place_shapes(shapes, config, defect_type, seed=seed, band=band, examples=examples)


def place_shapes(
    shapes: Shapes,
    config: MaskConfig,
    defect_type: str,
    *,
    seed: int,
    band: int,
    examples: Examples | None = None,
) -> MaskSource:
    """Shapes of a type of defect, placed as the configuration says; see `open_masks`."""
    return PlacedMasks(
        shapes,
        defect_type,
        seed,
        _open_regions(config, examples),
        margin=band if config.margin is None else config.margin,
        instances=config.instances,
        usual=examples.instances if examples else (1,),
        gap=2 * band + 1,
    )


def _open_shapes(
    config: MaskConfig,
    defect_type: str,
    *,
    window: int | None,
    gap: int | None,
    examples: Examples | None,
) -> Shapes:
    if config.mask_bank:
        bank = read_bank(config.mask_bank, gap)
        return BankShapes(bank, config.mask_scale or _BANK_SCALE, config.mask_min_area)
    if examples and not config.shape:
        if examples.whole:
            return ExampleRegions(examples.masks())
        return ExampleShapes(examples.masks(), directed=examples.directed, scale=config.mask_scale)
    own = None if config.shape == DRAWN else config.shape
    return DrawnShapes(own or defect_type, window)


def _open_regions(config: MaskConfig, examples: Examples | None) -> RegionSource:
    if config.golden:
        return Golden(config.golden, config.legal, config.forbidden)
    if config.within is None and examples and not (config.masks or examples.whole):
        return LikeExamples(examples.places)
    if config.within in (None, ANYWHERE):
        return Everywhere()
    if config.within == FOREGROUND:
        return Foreground()
    return RegionFolder(config.within) if config.within.is_dir() else RegionFile(config.within)


class Shapes(Protocol):
    """Shapes to be placed: a pure function of its settings and a generator of random numbers."""

    def __call__(self, rng: Rng, size: Size) -> Make:
        """Choose a shape for an image of ``size`` (H, W); it is made at the scale that fits."""

    def record(self) -> dict[str, Any]:
        """What decides the shapes, as plain JSON."""


class DrawnShapes:
    """Shapes that are drawn (see `defectrt.masks.shapes`)."""

    def __init__(self, defect_type: str, window: int | None) -> None:
        """``window`` is the side that the model sees, in px: it sets the scale; None: all."""
        self._defect_type, self._window = defect_type, window

    def __call__(self, rng: Rng, size: Size) -> Make:
        """Another one at every scale; `draw_shape` draws it again from its size and seed."""
        side = min(self._window or max(size), *size)

        def make(scale: float) -> tuple[Mask, dict[str, Any]]:
            size, seed = max(1, round(scale * side)), int(rng.integers(2**53))
            shape = draw_shape(self._defect_type, size, np.random.default_rng(seed))
            return shape, self.record() | {"size": size, "shape_seed": seed}

        return make

    def record(self) -> dict[str, Any]:
        """What is drawn."""
        return {"from": "drawn", "shape": self._defect_type}


class BankShapes:
    """Shapes from a bank of real defects' masks (see `defectrt.masks.bank`)."""

    def __init__(self, entries: list[BankEntry], scale: tuple[float, float], min_area: int) -> None:
        """``scale`` is the smallest and the largest; shapes keep ``min_area`` px at least."""
        self._entries, self._scale, self._min_area = entries, scale, min_area

    def __call__(self, rng: Rng, size: Size) -> Make:
        """One defect of the bank, turned anew at every scale."""
        entry = self._entries[rng.integers(len(self._entries))]
        low, high = self._scale
        chosen = exp(rng.uniform(log(low), log(high)))
        mirror = bool(rng.integers(2))

        def make(scale: float) -> tuple[Mask, dict[str, Any]]:
            angle, own = round(rng.uniform(0, 360), 2), round(chosen * scale, 4)
            shape = transplant(entry.shape, angle, own, mirror=mirror, min_area=self._min_area)
            where = {"file": entry.file, "sha256": entry.sha256, "piece": entry.piece}
            how = {"angle": angle, "scale": own, "mirror": mirror}
            return shape, {"from": "bank", **where, **how}

        return make

    def record(self) -> dict[str, Any]:
        """All defects of the bank by their content, and how they may change."""
        names = digest(f"{e.sha256} {e.piece} {e.file}" for e in self._entries)
        how = {"scale": list(self._scale), "min_area": self._min_area}
        return {"from": "bank", "defects": names, **how}


class SizedShapes:
    """Shapes from elsewhere, made as large as was asked for."""

    def __init__(self, shapes: Shapes, size: tuple[float, float]) -> None:
        """``size`` is the smallest and the largest longest side, in px."""
        self._shapes, self._size = shapes, size

    def __call__(self, rng: Rng, size: Size) -> Make:
        """One size for all scales that are tried, which make it smaller."""
        low, high = self._size
        wanted = exp(rng.uniform(log(low), log(high)))
        inner = self._shapes(rng, size)

        def make(scale: float) -> tuple[Mask, dict[str, Any]]:
            shape, record = inner(1.0)
            longest = round(wanted * scale, 2)
            return transplant(shape, scale=longest / max(shape.shape)), record | {
                "longest": longest
            }

        return make

    def record(self) -> dict[str, Any]:
        """The shapes, and their size."""
        return self._shapes.record() | {"longest": list(self._size)}


class PlacedMasks:
    """Shapes placed at random, each whole inside its region (see `defectrt.masks.placement`)."""

    def __init__(
        self,
        shapes: Shapes,
        defect_type: str,
        seed: int,
        regions: RegionSource | None = None,
        *,
        margin: int = 0,
        instances: tuple[int, int] | None = None,
        usual: Sequence[int] = (1,),
        gap: int = 1,
    ) -> None:
        """``margin`` px around a shape are legal too; instances are ``gap`` px apart.

        A sample has from the one to the other number of ``instances``, or else one of the
        ``usual`` numbers, each as likely.
        """
        self.shapes, self.defect_type, self.margin, self.gap = shapes, defect_type, margin, gap
        self.region = _Remembered(regions or Everywhere())
        self._seed = sample_seed(seed, defect_type, 0)
        self._instances = instances
        self._counts = range(instances[0], instances[1] + 1) if instances else usual

    def __call__(self, source: str, image: Bits, sample: int) -> list[Placed]:
        """The instances of one sample; where not all have room, at least the smallest number.

        Raises `InputError` if one of these fits nowhere.
        """
        seed = sample_seed(self._seed, source, sample)
        rng = np.random.default_rng(seed)
        count = self._counts[int(rng.integers(len(self._counts)))]
        return place_all([self] * count, source, image, seed, rng, least=min(self._counts))

    def record(self) -> dict[str, Any]:
        """The shapes, the regions and the numbers asked for; the seed is the job's."""
        within = self.region.source.record()
        rest = {"margin": self.margin, "instances": self._instances}
        return self.shapes.record() | rest | ({"within": within} if within else {})


def place_all(
    wanted: Sequence[PlacedMasks], source: str, image: Bits, seed: int, rng: Rng, *, least: int
) -> list[Placed]:
    """An instance of each source in turn, apart from those before it, until one has no room.

    ``seed`` is that of ``rng``, for the manifest. Raises `InputError` if one of the ``least``
    first fits nowhere.
    """
    size = image.shape[0], image.shape[1]
    placed, taken = list[Placed](), np.zeros(size, bool)
    for masks in wanted:
        region = masks.region(source, image)
        free = region.mask & ~taken if placed else region.mask
        found = place(masks.shapes(rng, size), free, rng, masks.margin)
        if found is None and len(placed) >= least:
            break
        if found is None:
            raise InputError(
                f"{source}: no place for mask {len(placed) + 1} whole inside its region, "
                f"in {TRIES} tries that got smaller"
            )
        shape, corner, made = found
        where = {"corner": list(corner), "seed": seed, "instance": len(placed)}
        record = made | where | ({"within": region.record} if region.record else {})
        placed.append(Placed(paste(shape, corner, size), record, masks.defect_type))
        if len(placed) < len(wanted):
            _take(taken, shape, corner, masks.gap)
    return placed


class LimitedMasks:
    """Masks from elsewhere, each of which lies whole in its region, or the image is out."""

    def __init__(self, masks: MaskSource, regions: RegionSource) -> None:
        """Nothing is moved: the masks stay where they are."""
        self._masks, self._regions = masks, _Remembered(regions)

    def __call__(self, source: str, image: Bits, sample: int) -> list[Placed]:
        """The masks. Raises `InputError` if any has a pixel outside its region."""
        region = self._regions(source, image)
        placed = self._masks(source, image, sample)
        outside = sum(int((instance.mask & ~region.mask).sum()) for instance in placed)
        if outside:
            raise InputError(f"{source}: {outside} px of its mask lie where no defect may be")
        return [replace(p, record=p.record | {"within": region.record}) for p in placed]

    def record(self) -> dict[str, Any]:
        """The masks and the regions."""
        return self._masks.record() | {"within": self._regions.source.record()}


class _Remembered:
    """A source of regions that is asked once an image, as long as the image is in use.

    Samples of one image may ask at the same time, from several threads.
    """

    def __init__(self, source: RegionSource) -> None:
        self.source = source
        self._lock = Lock()
        self._known: dict[int, _Answer] = {}

    def __call__(self, source: str, image: Bits) -> Region:
        key = id(image)
        with self._lock:
            answer = self._known.get(key)
            if answer is None:
                forget = weakref.ref(image, lambda _: self._known.pop(key, None))
                answer = self._known[key] = _Answer(forget)
        with answer.lock:
            if answer.region is None and answer.fault is None:
                try:
                    answer.region = self.source(source, image)
                except InputError as fault:
                    answer.fault = str(fault)
        if answer.region is None:
            raise InputError(answer.fault)
        return answer.region


@dataclass
class _Answer:
    """A region, or why there is none; forgotten when the image goes."""

    image: weakref.ref[Bits]
    lock: Lock = field(default_factory=Lock)
    region: Region | None = None
    fault: str | None = None


def _take(taken: Mask, shape: Mask, corner: tuple[int, int], gap: int) -> None:
    """Mark a shape and ``gap`` px around it as taken [H,W], in place."""
    around = grow(shape, gap)
    top, left = corner[0] - gap, corner[1] - gap
    y, x = max(0, top), max(0, left)
    view = taken[y : top + around.shape[0], x : left + around.shape[1]]
    view |= around[y - top :, x - left :][: view.shape[0], : view.shape[1]]
