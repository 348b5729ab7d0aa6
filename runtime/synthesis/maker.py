"""What makes the samples of one type of defect: its pipeline, and where its masks come from."""

from __future__ import annotations

from dataclasses import dataclass

from ..config.job import SynthesizerConfig
from ..engines.engine import Engine
from ..engines.loading import BUNDLED_ENGINE
from ..masks.examples import read_examples
from ..masks.source import MaskSource
from ..masks.sources import open_masks
from .pipeline import Pipeline

__all__ = ["Maker", "open_maker"]


@dataclass(frozen=True)
class Maker:
    """What makes one type."""

    pipeline: Pipeline
    masks: MaskSource


def open_maker(
    engine: Engine, config: SynthesizerConfig, defect: str, masks: MaskSource | None = None
) -> Maker:
    """What makes ``defect``, with ``masks`` or else those that the configuration asks for.

    Raises `UsageError` for what the engine does not make, `InputError` for masks and regions that
    cannot be used.
    """
    pipeline = Pipeline(engine, config, defect)
    masks = masks or open_masks(
        config,
        defect,
        window=pipeline.window,
        seed=config.seed,
        band=pipeline.band,
        examples=read_examples(config.engine or BUNDLED_ENGINE),
    )
    return Maker(pipeline, masks)
