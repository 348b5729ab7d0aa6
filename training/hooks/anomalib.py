"""A generator of anomalies for anomalib's models that learn from made ones.

model = Draem()
model.augmenter = AnomalyGenerator(engine="engines/part")
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from defectrt.config.job import SynthesizerConfig
from defectrt.errors import InputError
from defectrt.synthesis.synthesizer import Synthesizer
from defectrt.synthesis.workpiece import Workpiece

__all__ = ["AnomalyGenerator"]


class AnomalyGenerator(nn.Module):
    """Takes the place of anomalib's ``PerlinAnomalyGenerator``, as `Draem` and `Dsr` call it."""

    def __init__(
        self, config: SynthesizerConfig | None = None, *, probability: float = 0.5, **options: Any
    ) -> None:
        """``probability`` of an image to get a defect; options as `defectrt.Synthesizer` takes."""
        super().__init__()
        self.probability = probability
        self._synthesizer = Synthesizer(config, **options)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """[C,H,W] or [B,C,H,W] float, 0 to 1, and the same with defects, and their masks.

        Masks are [1,H,W] or [B,1,H,W], 0 and 1. What is not painted stays as it is to the bit.
        torch's seed decides. Raises `InputError` for images that were normalised.
        """
        if images.ndim == 3:
            made, masks = self(images[None])
            return made[0], masks[0]
        if images.min() < 0 or images.max() > 1:
            raise InputError("images should be 0 to 1; paint before they are normalised")
        made = images.clone()
        masks = images.new_zeros(len(images), 1, *images.shape[2:])
        chosen = (torch.rand(len(images)) < self.probability).nonzero()[:, 0].tolist()
        bits = (images * 255).round().to(torch.uint8).movedim(1, -1).cpu().numpy()
        names = [str(number) for number in torch.randint(1 << 62, (len(chosen),)).tolist()]
        pieces = [Workpiece(bits[i], name=n) for i, n in zip(chosen, names, strict=True)]
        for i, result in zip(chosen, self._results(pieces), strict=True):
            painted = result.image.reshape(bits[i].shape)
            changed = torch.from_numpy(np.any(painted != bits[i], axis=-1)).to(images.device)
            values = torch.from_numpy(painted.copy()).to(images) / 255
            made[i] = torch.where(changed, values.movedim(-1, 0), images[i])
            masks[i, 0] = torch.from_numpy(result.label.copy()).to(images)
        return made, masks

    def _results(self, pieces: list[Workpiece]) -> list[Any]:
        """The first sample of each."""
        count = self._synthesizer.config.count
        return list(self._synthesizer.run(pieces))[::count]
