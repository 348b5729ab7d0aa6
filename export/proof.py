"""The proof of an engine: what it gives beside what PyTorch gives, on random rows."""

from __future__ import annotations

from math import ceil

import numpy as np
import torch
from torch import Tensor, nn

from defectrt.diffusion.rows import Rows
from defectrt.diffusion.schedule import to_epsilon
from defectrt.engines.engine import Engine
from defectrt.errors import EngineError
from defectrt.training.models.attention import Masking
from defectrt.training.models.stable_diffusion import MaskedUNet

from .source import Source, random_rows

__all__ = ["compare", "reference_step"]


def _batches(prompts: int, image_size: int) -> list[int]:
    """Sizes of batches, several of them, with a row for every prompt.

    Large images come in small batches: a row of 512 px takes gigabytes.
    """
    sizes = [1, 3, 8] if image_size <= 256 else [1, 2]
    most = sizes[-1]
    return sizes + [most] * ceil(max(0, prompts - sum(sizes)) / most)


def compare(
    source: Source, engine: Engine, side: int, tolerance: float, autoencoder: float
) -> dict[str, float]:
    """Largest relative error of every output against PyTorch, over batches of 1, 3 and 8 rows.

    Every prompt is inside once and outside once. PyTorch takes the way of training, with prompt
    embeddings instead of tables, so that a wrong table is found too. Raises `EngineError` when an
    error passes ``tolerance``, or for encoder and decoder ``autoencoder``, or is not a number.
    """
    generator = torch.Generator().manual_seed(1)
    errors: dict[str, float] = {}
    size, first = source.record.image_size, 0
    with torch.no_grad():
        for count in _batches(len(source.embeddings), size):
            pixels = torch.rand(count, 3, size, size, generator=generator) * 2 - 1
            rows = random_rows(source, count, generator, first)
            first += count
            try:
                step, attention = engine.step(Rows(**{k: v.numpy() for k, v in rows.items()}))
                encoded = engine.encode(pixels.numpy())
                decoded = engine.decode(rows["latent"].numpy())
            except EngineError as fault:
                raise EngineError(
                    "the exported graphs differ from the model by more than rounding: "
                    f"{fault}; nothing was written"
                ) from None
            expected_step, expected_attention = reference_step(source, rows, side)
            for name, got, expected in (
                ("encoder", encoded, source.model.encode(pixels)),
                ("decoder", decoded, source.model.decode(rows["latent"])),
                ("step", step, expected_step),
                ("attention", attention, expected_attention),
            ):
                # unlike max, np.maximum keeps what is not a number
                errors[name] = float(
                    np.maximum(errors.get(name, 0.0), _relative_error(got, expected))
                )
    limits = dict.fromkeys(errors, tolerance) | {"encoder": autoencoder, "decoder": autoencoder}
    wrong = [
        f"{k} {v:.2g} (at most {limits[k]:g})" for k, v in errors.items() if not v <= limits[k]
    ]
    if wrong:
        raise EngineError(
            "the exported graphs differ from the model by more than rounding, of the largest "
            f"value: {', '.join(wrong)}; nothing was written"
        )
    return errors


def reference_step(source: Source, rows: dict[str, Tensor], side: int) -> tuple[Tensor, Tensor]:
    """The row step through the U-Net of training, with prompt embeddings."""
    masking = Masking(rows["mask"], content=source.content[rows["inside"]])
    prediction = MaskedUNet(source.model.unet)(
        rows["latent"],
        rows["timestep"],
        rows["mask"],
        source.embeddings[rows["inside"]],
        source.embeddings[rows["outside"]],
        masking,
    )
    alphas = torch.tensor(source.model.noise_schedule.alphas_cumprod)[rows["timestep"]]
    a, b, alpha = (x.view(-1, 1, 1, 1) for x in (rows["a"], rows["b"], alphas))
    epsilon = to_epsilon(source.model.prediction_type, prediction, rows["latent"], alpha).float()
    maps = [m for m in masking.maps if m.shape[-1] <= side]
    resized = [nn.functional.interpolate(m, (side, side), mode="bilinear") for m in maps]
    step = rows["region"] * (a * rows["latent"] + b * epsilon) + rows["anchor"]
    return step, torch.stack(resized).mean(0)


def _relative_error(got: np.ndarray, expected: Tensor) -> float:
    reference = expected.double().numpy()
    return float(np.abs(got - reference).max() / max(np.abs(reference).max(), 1e-12))
