"""What a model can do, measured on images: the background it keeps and the defects it makes.

For use while training and after it. A `Probe` is a model set up for measuring; its `make` puts a
defect under each mask and says how well everything else survived:

    probe = Probe(model, ["hole", "crack"], steps=20)
    made = probe.make(batch.pixels, batch.mask, batch.defect_types, seed=0)
    made.latent_error.mean(), appearance(made.before, made.after, batch.mask).mean()
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from defectrt.config.synthesis import SynthesisConfig
from defectrt.diffusion.noise import normal
from defectrt.diffusion.rows import Floats, Prompts, Rows
from defectrt.diffusion.sampler import denoise, generate, invert, noised, run
from defectrt.diffusion.schedule import to_epsilon
from defectrt.images.types import Mask
from defectrt.images.window import from_model
from defectrt.synthesis.acceptance import unseen
from defectrt.synthesis.refinement import appeared

from ..models.stable_diffusion import MaskedUNet, StableDiffusion

__all__ = ["Flags", "Made", "Probe", "appearance", "outside_error"]

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Made:
    """Defects that a model made in B crops.

    before        [B,3,S,S]: the crops through the autoencoder, in about [-1,1]
    after         [B,3,S,S]: the same with a defect under the mask, as an engine makes it by
                  default (``noised``, dpmsolver++)
    latent_error  [B]: root mean square, outside the mask, of z^m_0 denoised from its own
                  inversion (Eqs. 8 and 9, ``dual``) against z_0; latents have unit variance
    """

    before: Floats
    after: Floats
    latent_error: Floats


class Probe:
    """A model set up for measuring: prompts embedded once, no gradients, float32.

    The model stays as it is, and in the mode (training or not) that it is in.
    """

    def __init__(
        self,
        model: StableDiffusion,
        defect_types: Sequence[str],
        *,
        background_prompt: str = "good surface",
        masked_prompt: str = "",
        steps: int = 20,
        device: str = "cpu",
    ) -> None:
        """``defect_types`` are the defects' prompts, ``steps`` those of generation,
        and of DDIM each way for the round trip.

        Inversion follows the convention that engines are built with by default.
        """
        self._model, self._device = model, device
        self._net = MaskedUNet(model.unet.to(device))
        model.vae.to(device)
        texts = [background_prompt, masked_prompt, *defect_types]
        self._embeddings = model.encode_prompts(texts)[0].to(device)
        self._index = {defect_type: i for i, defect_type in enumerate(defect_types, start=2)}
        schedule = model.noise_schedule
        self._alphas = torch.tensor(schedule.alphas_cumprod, dtype=torch.float32, device=device)
        self._schedule = schedule.tables(steps, solver="dpmsolver++")
        self._round_trip = schedule.tables(steps)

    @torch.no_grad()
    def make(
        self,
        pixels: Floats,
        mask: Floats,
        defect_types: Sequence[str],
        *,
        seed: int = 0,
        items: Sequence[int] | None = None,
    ) -> Made:
        """Put a defect of its type under each mask.

        pixels [B,3,S,S] in [-1,1]; mask [B,1,S,S] in {0,1}. The noise is a function of ``seed``
        and of the crop's number in ``items`` (by default its place in the batch), so the same
        crops can be watched over a training.
        """
        numbers = range(len(pixels)) if items is None else items
        z0 = self._encode(pixels)
        m = nn.functional.max_pool2d(torch.from_numpy(mask), self._model.downscale).numpy()
        prompts = self._prompts(defect_types)
        noise = np.stack([normal(seed, number, 0, z0.shape[1:]) for number in numbers])
        path = noised(z0, m, noise, self._schedule)
        made = run(self.step, generate(path, m, noise, prompts, self._schedule, "noised"))
        path = run(self.step, invert(z0, m, prompts, self._round_trip))
        again = run(self.step, denoise(path, m, prompts, self._round_trip))
        before, after = self._decode(z0), self._decode(made.latent)
        return Made(before, after, outside_error(again, z0, m))

    def restore(self, pixels: Floats) -> Floats:
        """pixels [B,3,S,S] in [-1,1] through the autoencoder and back."""
        with torch.no_grad():
            return self._decode(self._encode(pixels))

    @torch.no_grad()
    def step(self, rows: Rows) -> tuple[Floats, Floats]:
        """One row step; of the attention nothing is kept."""
        names = ("latent", "mask", "region", "anchor", "a", "b", "timestep")
        latent, mask, region, anchor, a, b, timestep = (
            torch.from_numpy(getattr(rows, name)).to(self._device) for name in names
        )
        inside, outside = self._embeddings[rows.inside], self._embeddings[rows.outside]
        prediction = self._net(latent, timestep, mask, inside, outside).float()
        alpha, a, b = (x.view(-1, 1, 1, 1) for x in (self._alphas[timestep], a, b))
        epsilon = to_epsilon(self._model.prediction_type, prediction, latent, alpha)
        z = region * (a * latent + b * epsilon) + anchor
        return z.cpu().numpy(), np.zeros((len(z), 1, 1, 1), np.float32)

    def _prompts(self, defect_types: Sequence[str]) -> Prompts:
        defect = np.array([self._index[defect_type] for defect_type in defect_types], np.int64)
        return Prompts(defect, np.zeros_like(defect), np.ones_like(defect))

    def _encode(self, pixels: Floats) -> Floats:
        latent: Tensor = self._model.encode(torch.from_numpy(pixels).to(self._device))
        return latent.float().cpu().numpy()

    def _decode(self, latent: Floats) -> Floats:
        decoded: Tensor = self._model.decode(torch.from_numpy(latent).to(self._device))
        return decoded.float().cpu().numpy()


def outside_error(result: Floats, original: Floats, mask: Floats) -> Floats:
    """Root mean square difference where the mask is 0, [B].

    result, original [B,C,h,w]; mask [B,1,h,w] in {0,1}. A mask that covers everything gives 0.
    """
    outside = 1 - mask
    total = (outside * (result - original) ** 2).sum(axis=(1, 2, 3))
    area = outside.sum(axis=(1, 2, 3)) * result.shape[1]
    return np.asarray(np.sqrt(total / np.maximum(area, 1)), np.float32)


def appearance(
    before: Floats,
    after: Floats,
    mask: Floats,
    how: SynthesisConfig | None = None,
    *,
    fills: bool = True,
) -> Flags:
    """Whether a defect can be seen under each mask, [B].

    before, after [B,3,S,S] in about [-1,1]; mask [B,1,S,S] in {0,1}. The test is that of
    ``defectrt synthesize``: more changed than where a good surface is painted anew, in enough of
    the mask where that is what a defect ``fills``, as `SynthesisConfig` (by default its own) has
    it. Changes elsewhere do not count, and values that are not finite show nothing.
    """
    rows = zip(before, after, mask[:, 0] > 0, strict=True)
    return np.array([_appears(*row, how or SynthesisConfig(), fills) for row in rows])


def _appears(before: Floats, after: Floats, mask: Mask, how: SynthesisConfig, fills: bool) -> bool:
    if not (np.isfinite(before).all() and np.isfinite(after).all()):
        return False
    good, result = (from_model(pixels, len(mask)) for pixels in (before, after))
    shown = appeared(mask, good, result, how)
    return unseen(how, float(shown.sum() / mask.sum()), fills=fills) is None
