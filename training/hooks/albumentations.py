"""A transform of albumentations that paints a defect, and marks it in the mask.

transform = A.Compose([PaintDefect(engine="engines/part", p=0.5), A.HorizontalFlip()])
augmented = transform(image=image, mask=mask)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from albumentations.core.transforms_interface import DualTransform
from albumentations.core.type_definitions import Targets
from numpy.typing import NDArray

from defectrt.config.job import SynthesizerConfig
from defectrt.images.types import Bits
from defectrt.synthesis.synthesizer import Synthesizer

__all__ = ["PaintDefect"]


class PaintDefect(DualTransform):
    """Paints a defect into an image [H,W] or [H,W,C], uint8, with probability ``p``.

    Where it is, the mask gets ``value``; a mask has to be given to learn it. Which defect, the
    random numbers of albumentations say, so that ``seed`` of a `Compose` holds.
    """

    _targets = (Targets.IMAGE, Targets.MASK)

    def __init__(
        self,
        config: SynthesizerConfig | None = None,
        *,
        value: int = 1,
        p: float = 0.5,
        **options: Any,
    ) -> None:
        """Options as `defectrt.Synthesizer` takes them, which opens the engine."""
        super().__init__(p=p)
        self.value = value
        self._synthesizer = Synthesizer(config, **options)

    def get_params_dependent_on_data(
        self, params: dict[str, Any], data: dict[str, Any]
    ) -> dict[str, Any]:
        """The sample that is made of the image at hand."""
        number = self.py_random.getrandbits(31)
        made = self._synthesizer(data["image"], name="albumentations", number=number)
        return {"painted": made.image, "label": made.label}

    def apply(self, img: Bits, painted: Bits, **params: Any) -> Bits:
        """The image with the defect."""
        return painted.reshape(img.shape)

    def apply_to_mask(
        self, mask: NDArray[Any], label: NDArray[np.bool_], **params: Any
    ) -> NDArray[Any]:
        """The mask with the defect, in all of its channels."""
        marked = mask.copy()
        marked[label] = self.value
        return marked
