"""What training minimises: the paper's loss (Eq. 5) and the two stages that come before it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:  # the sums need PyTorch alone
    from diffusers import AutoencoderKL

__all__ = ["PromptEmbeddings", "autoencoder", "denoise", "disentangle", "masked_mean", "noised"]

#: ε_θ: (latent, timestep, mask, inside, outside) -> prediction
Predictor = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class PromptEmbeddings:
    """Embeddings of a batch, each [B,L,D].

    C_1 = [defect, background], C_2 = [masked, background].
    """

    defect: Tensor
    background: Tensor
    masked: Tensor


def noised(z0: Tensor, noise: Tensor, alpha: Tensor) -> Tensor:
    """Eq. 1: √α z_0 + √(1-α) ε; z0, noise [B,C,h,w], alpha [B,1,1,1]."""
    return alpha.sqrt() * z0 + (1 - alpha).sqrt() * noise


def target(prediction_type: str, z0: Tensor, noise: Tensor, alpha: Tensor) -> Tensor:
    """What the model should predict: ε, v = √α ε - √(1-α) z_0, or z_0."""
    if prediction_type == "epsilon":
        return noise
    if prediction_type == "v_prediction":
        return alpha.sqrt() * noise - (1 - alpha).sqrt() * z0
    if prediction_type == "sample":
        return z0
    raise ValueError(f"unknown prediction type {prediction_type!r}")


def masked_mean(error: Tensor, region: Tensor, *, by_area: bool) -> Tensor:
    """Mean of ``error`` [B,C,h,w] over ``region`` [B,1,h,w].

    ``by_area`` divides by the region's own area, row by row (rows with none count 0), so that a
    small defect weighs as much as a large one; otherwise by the whole latent, as Eq. 5 is printed.
    """
    total = (error * region).sum(dim=(1, 2, 3))
    if not by_area:
        return total.mean() / error[0].numel()
    area = region.sum(dim=(1, 2, 3)) * error.shape[1]
    return (total / area.clamp(min=1)).sum() / (area > 0).sum().clamp(min=1)


def disentangle(
    predict: Predictor,
    z0: Tensor,
    mask: Tensor,
    noise: Tensor,
    timestep: Tensor,
    alphas: Tensor,
    prompts: PromptEmbeddings,
    *,
    prediction_type: str = "epsilon",
    by_area: bool = True,
    prior_weight: float | None = None,
    guidance: float = 1.0,
) -> dict[str, Tensor]:
    """The disentanglement loss, Eq. 5: ``{"matching": …, "regularizer": …}``, to be added.

    matching    ‖m (ε - ε_θ(z_t, t, C_1))‖²        the defect, seen with its background
    regularizer ‖(1-m) (ε - ε_θ(z_t^m, t, C_2))‖²  the background, with nothing under the mask

    With a ``prior_weight`` λ there is a third, ``prior``: λ times the regularizer's share of the
    rows whose mask is empty, which are good images. There it is ‖ε - ε_θ(z_t, t, C_bg)‖², so
    this is DreamBooth's prior preservation with real good images as the prior; λ = 1 is Eq. 5.

    A ``guidance`` w > 1 trains in what classifier-free guidance of scale w would do at run time,
    where it would cost a second evaluation a step. To what the defect's prediction p should be,
    (1 - 1/w)(p - p_bg) is added without a gradient ("model guidance", Tang et al. 2025), p_bg
    being the prediction for the same latent with no defect in mind; p then settles at
    p_bg + w (p' - p_bg), with p' as Eq. 5 alone has it.

    z0 [B,C,h,w]; mask [B,1,h,w] in {0,1}; timestep [B] int64; alphas [T]. One batch of 2B rows.
    """
    alpha = alphas[timestep].view(-1, 1, 1, 1)
    z0_m, noise_m = (1 - mask) * z0, (1 - mask) * noise
    z_t = noised(z0, noise, alpha)
    prediction = predict(
        torch.cat([z_t, noised(z0_m, noise_m, alpha)]),
        timestep.repeat(2),
        mask.repeat(2, 1, 1, 1),
        torch.cat([prompts.defect, prompts.masked]),
        prompts.background.repeat(2, 1, 1),
    )
    defect, background = prediction.float().chunk(2)
    wanted = target(prediction_type, z0, noise, alpha)
    if guidance > 1:
        with torch.no_grad():
            ground = prompts.background
            plain = predict(z_t, timestep, torch.zeros_like(mask), ground, ground)
            wanted = wanted + (1 - 1 / guidance) * (defect - plain.float())
    matching = (defect - wanted).square()
    regularizer = (background - target(prediction_type, z0_m, noise_m, alpha)).square()
    terms = {"matching": masked_mean(matching, mask, by_area=by_area)}
    if prior_weight is None:
        return terms | {"regularizer": masked_mean(regularizer, 1 - mask, by_area=by_area)}
    good = (mask.amax(dim=(1, 2, 3), keepdim=True) == 0).float()
    rows = {"regularizer": 1 - good, "prior": prior_weight * good}
    return terms | {
        name: masked_mean(regularizer * weight, 1 - mask, by_area=by_area)
        for name, weight in rows.items()
    }


def denoise(
    predict: Predictor,
    z0: Tensor,
    mask: Tensor,
    noise: Tensor,
    timestep: Tensor,
    alphas: Tensor,
    prompts: PromptEmbeddings,
    *,
    prediction_type: str = "epsilon",
    by_area: bool = True,
) -> dict[str, Tensor]:
    """The plain loss, Eq. 2, over the whole latent: ``{"background": …, "defect": …}``.

    The prompts are already told apart by the mask. With ``by_area`` the masked area weighs as
    much as everything around it. Shapes as in `disentangle`.
    """
    alpha = alphas[timestep].view(-1, 1, 1, 1)
    prediction = predict(
        noised(z0, noise, alpha), timestep, mask, prompts.defect, prompts.background
    )
    error = (prediction.float() - target(prediction_type, z0, noise, alpha)).square()
    return {
        "background": masked_mean(error, 1 - mask, by_area=by_area),
        "defect": masked_mean(error, mask, by_area=by_area),
    }


def autoencoder(vae: AutoencoderKL, pixels: Tensor, noise: Tensor) -> dict[str, Tensor]:
    """Train the VAE: ``{"l1": …, "edges": …, "levels": …, "kl": …}``.

    pixels [B,3,H,W] in [-1,1]; noise [B,C,h,w] standard normal. L1 keeps the image, the L1 of
    differences between neighbours keeps grain and thin lines sharp, the L1 of means over 4x4 px
    brings colour early (on textures its gradient drowns in L1's signs), and a small KL (weight
    1e-4, against the 1e-6 of latent diffusion's larger latents) keeps the latents near unit scale.
    """
    posterior = vae.encode(pixels).latent_dist
    result = vae.decode(posterior.mean + posterior.std * noise).sample.float()
    edges = sum(F.l1_loss(result.diff(dim=d), pixels.diff(dim=d)) for d in (2, 3))
    levels = F.l1_loss(F.avg_pool2d(result, 4), F.avg_pool2d(pixels, 4))
    return {
        "l1": F.l1_loss(result, pixels),
        "edges": torch.as_tensor(edges),
        "levels": 4 * levels,
        "kl": 1e-4 * posterior.kl().mean() / noise[0].numel(),
    }
