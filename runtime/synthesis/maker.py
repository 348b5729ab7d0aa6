"""What makes the samples of one type of defect: its pipeline, and where its masks come from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..config.job import SynthesizerConfig
from ..engines.engine import Engine
from ..engines.loading import BUNDLED_ENGINE
from ..masks.examples import read_examples
from ..masks.source import MaskSource
from ..masks.sources import open_masks
from .pipeline import Pipeline

__all__ = ["Maker", "open_makers"]


@dataclass(frozen=True)
class Maker:
    """What makes one type."""

    pipeline: Pipeline
    masks: MaskSource


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
    examples = {} if masks else read_examples(config.engine or BUNDLED_ENGINE)
    makers = {}
    for name in defect_types:
        pipeline = Pipeline(engine, config, name)
        own = masks or open_masks(
            config,
            name,
            window=pipeline.window,
            seed=config.seed,
            band=pipeline.band,
            examples=examples.get(name),
        )
        makers[name] = Maker(pipeline, own)
    return makers
