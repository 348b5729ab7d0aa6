"""What makes the samples of one type of defect: its pipeline, and where its masks come from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

from ..config.job import SynthesizerConfig
from ..config.names import COMBINED
from ..engines.engine import Engine
from ..engines.loading import BUNDLED_ENGINE
from ..engines.manifest import read_manifest
from ..errors import UsageError
from ..masks.examples import read_examples
from ..masks.source import MaskSource, Placed
from ..masks.sources import PlacedMasks, open_masks, place_shapes
from .mixed import Mixed
from .pipeline import Pipeline, Sample, SourceImage
from .scheduler import Work
from .strength import BUNDLED_STRENGTH, Strengths
from .transplant import DonorShapes, digest_of, donor_types, read_donors, transplanted

__all__ = ["Maker", "open_makers", "open_mixed", "types_made"]


_Paint: TypeAlias = Callable[[SourceImage, int, Sequence[Placed]], Work[Sample]]


@dataclass(frozen=True)
class Maker:
    """What makes one type, or samples of several types.

    defect     the type of what is placed without one
    masks      says where its defects come
    strengths  of each type, says how strong those are of which that is not said with their masks
    paint      paints them, and those of other types: a source image, the sample's number among the
               image's, and where
    steps      of diffusion that a sample takes one way
    healthy    paints the same places without a defect; None where nothing is painted
    """

    defect: str
    masks: MaskSource
    strengths: Mapping[str, Strengths]
    paint: _Paint
    steps: int
    healthy: _Paint | None = None

    def places(self, source: SourceImage, number: int) -> list[Placed]:
        """Where the defects of a sample come, and how strong. Raises as its masks do."""
        return self.strong(source, number, self.masks(source.name, source.image, number))

    def strong(self, source: SourceImage, number: int, placed: Sequence[Placed]) -> list[Placed]:
        """The same places, with what strength is wanted there, which their records say."""
        return [self._strong(source, number, i, one) for i, one in enumerate(placed)]

    def _strong(self, source: SourceImage, number: int, instance: int, placed: Placed) -> Placed:
        wanted = placed.strength
        strengths = self.strengths.get(placed.defect or self.defect)
        if wanted is None and strengths:
            wanted = strengths(source.name, number, instance)
        if wanted is None:
            return placed
        return replace(placed, strength=wanted, record=placed.record | {"strength": wanted})


def types_made(engine: Engine, config: SynthesizerConfig) -> list[str]:
    """The types of defect that can be made: the engine's, or those of examples to be like."""
    return list(donor_types(config.like)) if config.like else engine.manifest.defect_types


def open_makers(
    engine: Engine,
    config: SynthesizerConfig,
    defect_types: Iterable[str],
    masks: MaskSource | None = None,
) -> dict[str, Maker]:
    """What makes each type, with ``masks`` or else those that the configuration asks for.

    Raises `UsageError` for what the engine does not make, `InputError` for masks and regions that
    cannot be used.
    """
    if config.like and masks:
        raise UsageError("mask_source: like has masks of its own; leave one of them out")
    names = list(defect_types)
    if not names:
        return {}
    if config.like:
        return _like(config.like, config, names)
    examples = read_examples(config.engine or BUNDLED_ENGINE)
    interval = config.strength
    if engine.manifest.fingerprint == read_manifest(BUNDLED_ENGINE).fingerprint:
        interval = interval or BUNDLED_STRENGTH
    strengths = {
        name: Strengths(
            config.seed, name, interval, examples[name].strengths if name in examples else ()
        )
        for name in names
    }
    makers = {}
    for name in names:
        pipeline = Pipeline(engine, config, name)
        own = masks or open_masks(
            config,
            name,
            window=pipeline.window,
            seed=config.seed,
            band=pipeline.band,
            examples=examples.get(name),
        )
        paint, healthy = (partial(_painted, pipeline, healthy=one) for one in (False, True))
        makers[name] = Maker(name, own, strengths, paint, len(pipeline.schedule), healthy)
    return makers


def open_mixed(
    makers: Mapping[str, Maker], config: SynthesizerConfig, shares: Mapping[str, int]
) -> Maker:
    """What makes samples with defects of several types, by the makers of each.

    Raises `UsageError` where there are none to mix, and for masks that are not placed.
    """
    sources = {n: m.masks for n, m in makers.items() if isinstance(m.masks, PlacedMasks)}
    if len(sources) < len(makers):
        raise UsageError("mixed: masks and mask_source say where, but not what; leave them out")
    if len(shares) < 2:
        raise UsageError("mixed: needs two types of defect or more")
    if COMBINED in sources:
        raise UsageError(f"mixed: a type that is made is named {COMBINED!r}; leave it out")
    masks = Mixed(sources, shares, config.instances, config.seed)
    return replace(next(iter(makers.values())), masks=masks)


def _painted(
    pipeline: Pipeline,
    source: SourceImage,
    number: int,
    placed: Sequence[Placed],
    *,
    healthy: bool,
) -> Work[Sample]:
    return pipeline.sample(
        source,
        number,
        [p.mask for p in placed],
        defects=[p.defect for p in placed],
        strengths=[p.strength for p in placed],
        healthy=healthy,
    )


def _like(folder: Path, config: SynthesizerConfig, names: Iterable[str]) -> dict[str, Maker]:
    donors = read_donors(folder)
    everything = digest_of(donor for own, _ in donors.values() for donor in own)
    shapes = {
        name: DonorShapes(own, directed=examples.directed, folder=everything)
        for name, (own, examples) in donors.items()
    }
    names = list(names)
    strengths = {name: Strengths(config.seed, name, config.strength) for name in names}
    makers = {}
    for name in names:
        own, examples = shapes[name], donors[name][1]
        masks = place_shapes(own, config, name, seed=config.seed, band=1, examples=examples)
        paint = partial(transplanted, shapes, config)
        makers[name] = Maker(name, masks, strengths, paint, 0)
    return makers
