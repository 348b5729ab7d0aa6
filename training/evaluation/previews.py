"""Fixed images, painted every so often while a model trains, and what they show."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from defectrt.diffusion.rows import Floats
from defectrt.files import write_whole

from ..config import TrainConfig
from ..data.crops import Batch, Crops
from ..data.samples import GOOD, Sample
from ..models.stable_diffusion import StableDiffusion
from ..record import RESUME, prompt_of
from .probe import Flags, Made, Probe, appearance, outside_error

__all__ = ["Previews", "grid"]

Levels = NDArray[np.uint8]

#: Samples in a preview, at least; every defect type has as many.
_SAMPLES = 8
#: A cell of the grid is enlarged in whole steps up to this side in px, or reduced to the other.
_SMALLEST, _LARGEST = 96, 256


class Previews:
    """The same crops, masks and noise every time, so that only the model differs.

    ``previews/<step>.png`` shows, a row a sample, the original, the mask and the result. Masks
    come from crops of the training images; the originals are good images where there are
    any, otherwise those crops themselves.
    """

    def __init__(
        self,
        model: StableDiffusion,
        samples: Sequence[Sample],
        config: TrainConfig,
        run: Path,
        *,
        steps: int = 20,
        device: str = "cpu",
    ) -> None:
        """Draw the crops; ``steps`` are the DDIM steps each way."""
        self._model, self._config, self._folder = model, config, run / "previews"
        self._steps, self._device = steps, device
        self._batch = _fixed(samples, config)

    def draw(self, step: int) -> tuple[dict[str, Any], Levels]:
        """Paint, write ``previews/<step>.png``; returns the figures and the image.

        outside_error  how far the background is from itself after inversion and generation:
                       root mean square in the latent, outside the mask
        defects_shown  share of samples in which a defect appears, as `synthesize` would keep them

        For a VAE or its decoder there is only ``error``, the root mean square of pixels in [-1,1].
        """
        paint = self._restore if self._config.of_vae else self._paint
        figures, columns = paint()
        image = grid(columns, self._batch.defect_types)
        path, data = self._folder / f"{step:06d}.png", BytesIO()
        Image.fromarray(image).save(data, "PNG")
        write_whole(path, data.getvalue(), advice=RESUME)
        return figures | {"preview": f"previews/{path.name}"}, image

    def _restore(self) -> tuple[dict[str, Any], list[Floats]]:
        before = self._batch.pixels
        pixels = torch.from_numpy(before).to(self._device)
        after = self._model.decode(self._model.encode(pixels)).float().cpu().numpy()
        error = outside_error(after, before, np.zeros_like(self._batch.mask)).mean()
        return {"error": round(float(error), 4)}, [before, after]

    def _paint(self) -> tuple[dict[str, Any], list[Floats]]:
        pixels, mask = self._batch.pixels, self._batch.mask
        made = self._made()
        figures = {
            "outside_error": round(float(made.latent_error.mean()), 4),
            "defects_shown": round(float(self._shown(made, mask).mean()), 3),
        }
        white = (2 * mask - 1).repeat(3, axis=1)
        return figures, [pixels, white, made.after]

    def _shown(self, made: Made, mask: Floats) -> Flags:
        return appearance(made.before, made.after, mask, fills=self._config.magnify != "fit")

    def _made(self) -> Made:
        """A defect under each mask, as many at once as the training has crops at once."""
        batch, config = self._batch, self._config
        texts = [prompt_of(defect_type, config) for defect_type in batch.defect_types]
        probe = Probe(
            self._model,
            sorted(set(texts)),
            background_prompt=config.background_prompt,
            masked_prompt=config.masked_prompt,
            steps=self._steps,
            device=self._device,
        )
        numbers = range(len(texts))
        parts = [numbers[i : i + config.batch_size] for i in numbers[:: config.batch_size]]
        made = [
            probe.make(
                batch.pixels[part.start : part.stop],
                batch.mask[part.start : part.stop],
                texts[part.start : part.stop],
                seed=config.seed,
                items=part,
            )
            for part in parts
        ]
        return Made(*(np.concatenate([getattr(m, f) for m in made]) for f in Made.__annotations__))


def _fixed(samples: Sequence[Sample], config: TrainConfig) -> Batch:
    """Masks of every defect type in turn, over good images if there are any."""
    good = [s for s in samples if s.defect_type == GOOD]
    defect_types = sorted({s.defect_type for s in samples} - {GOOD}) or [GOOD]
    each = -(-_SAMPLES // len(defect_types))
    crops = [
        _crops([s for s in samples if s.defect_type == defect_type], config)
        for defect_type in defect_types
    ]
    batches = [crop.batch(0, each) for crop in crops]
    pixels = [batch.pixels for batch in batches]
    if good:
        pixels = [_crops(good, config).batch(0, each * len(defect_types)).pixels]
    return Batch(
        np.concatenate(pixels),
        np.concatenate([batch.mask for batch in batches]),
        tuple(defect_type for batch in batches for defect_type in batch.defect_types),
    )


def _crops(samples: Sequence[Sample], config: TrainConfig) -> Crops:
    assert config.window is not None
    return Crops(samples, config.window, seed=config.seed, magnify=config.magnify)


def grid(columns: Sequence[Floats], defect_types: Sequence[str]) -> Levels:
    """A row a sample, named by its defect type; columns [B,3,S,S] in about [-1,1]."""
    side = columns[0].shape[-1]
    size = min(side * -(-_SMALLEST // side), _LARGEST)
    method = cv2.INTER_AREA if size < side else cv2.INTER_NEAREST
    rows = []
    for row in zip(*columns, strict=True):
        cells = [_levels(cell) for cell in row]
        rows.append(np.hstack([cv2.resize(c, (size, size), interpolation=method) for c in cells]))
    image = Image.fromarray(np.vstack(rows))
    pen = ImageDraw.Draw(image)
    for i, defect_type in enumerate(defect_types):
        pen.text((4, i * size + 2), defect_type, fill="white", stroke_width=2, stroke_fill="black")
    return np.asarray(image)


def _levels(cell: Floats) -> Levels:
    """[3,S,S] in about [-1,1] -> [S,S,3] uint8; what is not finite is black."""
    values = np.nan_to_num(cell.transpose(1, 2, 0), nan=-1.0)
    return ((values.clip(-1, 1) + 1) * 127.5).round().astype(np.uint8)
