"""What makes the samples of one type of defect: its pipeline, and where its masks come from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ..config.job import SynthesizerConfig
from ..engines.engine import Engine
from ..engines.loading import BUNDLED_ENGINE
from ..errors import UsageError
from ..masks.examples import read_examples
from ..masks.source import MaskSource, Placed
from ..masks.sources import open_masks, place_shapes
from .pipeline import Pipeline, Sample, SourceImage
from .scheduler import Work
from .strength import BUNDLED_STRENGTH, Strengths
from .transplant import DonorShapes, digest_of, donor_types, read_donors, transplanted

__all__ = ["Maker", "open_makers", "types_made"]


@dataclass(frozen=True)
class Maker:
    """What makes one type.

    masks      says where its defects come
    strengths  says how strong they are, where that is not said with their masks
    paint      paints them: a source image, the sample's number among the image's, and where
    steps      of diffusion that a sample takes one way
    """

    masks: MaskSource
    strengths: Strengths
    paint: Callable[[SourceImage, int, Sequence[Placed]], Work[Sample]]
    steps: int

    def sample(self, source: SourceImage, number: int, placed: Sequence[Placed]) -> Work[Sample]:
        """One sample with a defect at each of the places."""
        drawn = self.strengths(source.name, number, len(placed))
        placed = [
            one if one.strength is not None else replace(one, strength=own)
            for one, own in zip(placed, drawn, strict=True)
        ]
        return self.paint(source, number, placed)


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
    examples = {} if masks else read_examples(config.engine or BUNDLED_ENGINE)
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
        known = examples[name].strengths if name in examples else ()
        interval = config.strength or (None if config.engine else BUNDLED_STRENGTH)
        strengths = Strengths(config.seed, name, interval, known)
        paint = partial(_painted, pipeline)
        makers[name] = Maker(own, strengths, paint, len(pipeline.schedule))
    return makers


def _painted(
    pipeline: Pipeline, source: SourceImage, number: int, placed: Sequence[Placed]
) -> Work[Sample]:
    masks, strengths = [one.mask for one in placed], [one.strength for one in placed]
    return pipeline.sample(source, number, masks, strengths=strengths)


def _like(folder: Path, config: SynthesizerConfig, names: Iterable[str]) -> dict[str, Maker]:
    makers, donors = {}, read_donors(folder)
    everything = digest_of(donor for own, _ in donors.values() for donor in own)
    for name in names:
        own, examples = donors[name]
        shapes = DonorShapes(own, directed=examples.directed, folder=everything)
        masks = place_shapes(shapes, config, name, seed=config.seed, band=1, examples=examples)
        strengths = Strengths(config.seed, name, config.strength)
        makers[name] = Maker(masks, strengths, partial(transplanted, shapes, config), 0)
    return makers
