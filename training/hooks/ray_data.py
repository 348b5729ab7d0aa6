"""A step of a Ray Data pipeline that paints defects into a column of images.

made = ray.data.read_images("good", include_paths=True).map_batches(
    PaintBatches, fn_constructor_kwargs={"engine": "engines/part"}, concurrency=2, batch_size=16)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from defectrt.synthesis.synthesizer import Synthesizer
from defectrt.synthesis.workpiece import Workpiece

__all__ = ["PaintBatches"]


class PaintBatches:
    """An actor's state: an engine that stays open. Options as `defectrt.Synthesizer` takes them."""

    def __init__(self, **options: Any) -> None:
        """Open the engine."""
        self._synthesizer = Synthesizer(**options)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Columns image and path, or name, in; image, mask, defect, name and number out.

        A row becomes ``count`` rows. Which defect it gets, the last part of its path decides.
        """
        names = batch["name"] if "name" in batch else batch["path"]
        pieces = [
            Workpiece(np.asarray(image), name=str(name).replace("\\", "/").rsplit("/", 1)[-1])
            for image, name in zip(batch["image"], names, strict=True)
        ]
        made = list(self._synthesizer.run(pieces))
        return {
            "image": _column([result.image for result in made]),
            "mask": _column([result.label.astype(np.uint8) * 255 for result in made]),
            "defect": [result.defect for result in made],
            "name": [result.name for result in made],
            "number": [result.number for result in made],
        }


def _column(arrays: list[Any]) -> Any:
    """One array if all have a shape."""
    return np.stack(arrays) if len({array.shape for array in arrays}) == 1 else arrays
