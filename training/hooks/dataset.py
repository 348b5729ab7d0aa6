"""A dataset of torch whose samples are made when they are asked for, by any number of workers.

made = MadeDefects(paths, count=100, engine="engines/part", threads=1)
for batch in DataLoader(made, batch_size=8, num_workers=4, shuffle=True):
    train(batch["image"], batch["mask"])
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from defectrt.config.job import SynthesizerConfig
from defectrt.images.given import Picture
from defectrt.synthesis.synthesizer import Synthesizer

__all__ = ["MadeDefects"]


class MadeDefects(Dataset):
    """Every good image ``count`` times, each time with another defect.

    A sample depends on its place alone, so that order, workers and machines change nothing: sample
    i is number i // n of image i % n of n. Each worker opens an engine of its own.
    """

    def __init__(
        self,
        images: Sequence[Picture],
        config: SynthesizerConfig | None = None,
        *,
        transform: Callable[[dict[str, Any]], Any] | None = None,
        **options: Any,
    ) -> None:
        """``images`` as `defectrt.Workpiece` takes them; options as `defectrt.Synthesizer` does.

        ``transform`` gets a sample and returns what is given in its place. Raises `UsageError` for
        options that are not possible; the engine is opened with the first sample.
        """
        self.images = list(images)
        self.config = config.replace(**options) if config else SynthesizerConfig(**options)
        self._transform = transform
        self._opened: tuple[int, Synthesizer] | None = None

    def __len__(self) -> int:
        """Samples in all."""
        return len(self.images) * self.config.count

    def __getitem__(self, place: int) -> Any:
        """A sample: image [C,H,W] float32 0 to 1, mask [H,W] bool, defect, name and number.

        Where no defect appeared, the mask is empty. Raises `IndexError`, and `InputError` for an
        image that cannot be used.
        """
        if not -len(self) <= place < len(self):
            raise IndexError(place)
        number, which = divmod(place % len(self), len(self.images))
        image = self.images[which]
        name = "" if isinstance(image, str | os.PathLike) else str(which)
        made = self._synthesizer()(image, name=name, number=number)
        values = made.image if made.image.ndim == 3 else made.image[..., None]
        scaled = values.astype(np.float32) / np.iinfo(values.dtype).max
        sample = {
            "image": torch.from_numpy(scaled).movedim(-1, 0).contiguous(),
            "mask": torch.from_numpy(made.label.copy()),
            "defect": made.defect,
            "name": made.name,
            "number": number,
        }
        return self._transform(sample) if self._transform else sample

    def __getstate__(self) -> dict[str, Any]:
        """Without the engine."""
        return self.__dict__ | {"_opened": None}

    def _synthesizer(self) -> Synthesizer:
        """This process's own: threads of an engine do not survive a fork."""
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), Synthesizer(self.config)
        return self._opened[1]
