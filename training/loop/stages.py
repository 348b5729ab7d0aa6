"""What one objective trains: a module whose forward pass is the loss of a batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig
from torch import Tensor, nn

from ..config import TrainConfig
from ..data.crops import Batch, Crops
from ..data.samples import GOOD, Sample
from ..models.stable_diffusion import MaskedUNet, StableDiffusion
from ..record import prompt_of
from .objectives import PromptEmbeddings, autoencoder, denoise, disentangle

__all__ = ["Stage", "latent_mask", "make_stage"]


class Stage(nn.Module):
    """The trained module and its loss, in one forward pass, so that any wrapper can hold it.

    per_defect  the term that is a mean over rows with a defect, and not over all rows
    """

    per_defect: str | None = None

    def __init__(self, module: nn.Module, model: StableDiffusion, device: torch.device) -> None:
        """Train ``module``, a part of ``model``."""
        super().__init__()
        self.module, self.device = module, device
        self._model = [model]  # in a list, or its other parts would count as this module's

    @property
    def model(self) -> StableDiffusion:
        """The whole model."""
        return self._model[0]

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """The loss terms of ``batch``, to be added; all randomness comes from ``generator``."""
        raise NotImplementedError

    def put(self, tensor: Tensor) -> Tensor:
        """A tensor of the CPU on the device; a card is not waited for."""
        if self.device.type == "cpu":
            return tensor
        return tensor.pin_memory().to(self.device, non_blocking=True)

    def finish(self, crops: Crops) -> None:
        """The last touch before the model is saved."""


def make_stage(
    model: StableDiffusion, samples: Sequence[Sample], config: TrainConfig, device: torch.device
) -> Stage:
    """The stage of ``config.objective``, on ``device``, ready to train."""
    model.vae.to(device)
    stage: Stage
    if config.objective == "autoencoder":
        stage = _Autoencoder(model.vae, model, device)
    elif config.objective == "decoder":
        stage = _Decoder(model.vae, model, device)
    else:
        stage = _Denoiser(model, samples, config, device)
    if config.gradient_checkpointing:
        stage.module.enable_gradient_checkpointing()
    stage.module.train()
    return stage


class _Autoencoder(Stage):
    def __init__(self, module: nn.Module, model: StableDiffusion, device: torch.device) -> None:
        super().__init__(module, model, device)
        module.requires_grad_(True)

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        pixels = self.put(torch.from_numpy(batch.pixels))
        h, w = (side // self.model.downscale for side in pixels.shape[-2:])
        shape = (len(pixels), self.module.config.latent_channels, h, w)
        noise = self.put(torch.randn(shape, generator=generator))
        return autoencoder(self.module, pixels, noise)

    def finish(self, crops: Crops) -> None:
        """Set the scaling factor so that latents have unit variance, as latent diffusion does."""
        vae = self.module
        vae.register_to_config(scaling_factor=1.0)
        pixels = torch.from_numpy(crops.batch(0, 64).pixels).to(self.device)
        vae.register_to_config(scaling_factor=float(1 / self.model.encode(pixels).std()))


class _Decoder(_Autoencoder):
    """The second half alone: latents stay what they are, so U-Nets trained on them still fit."""

    def __init__(self, module: nn.Module, model: StableDiffusion, device: torch.device) -> None:
        super().__init__(module, model, device)
        for first_half in (module.encoder, module.quant_conv):
            if first_half is not None:
                first_half.requires_grad_(False)

    def finish(self, crops: Crops) -> None:
        """Leave the scaling factor, which belongs to the latents."""


class _Denoiser(Stage):
    def __init__(
        self,
        model: StableDiffusion,
        samples: Sequence[Sample],
        config: TrainConfig,
        device: torch.device,
    ) -> None:
        unet = model.unet.to(device)
        unet.requires_grad_(not config.lora)
        if config.lora:
            _add_lora(unet, config.lora, config.seed)
        super().__init__(unet, model, device)
        self.net, self.config = MaskedUNet(unet), config
        defect_types = [GOOD, *sorted({s.defect_type for s in samples} - {GOOD})]
        texts = [
            config.background_prompt,
            *(prompt_of(defect_type, config) for defect_type in defect_types),
        ]
        self._index = {defect_type: i for i, defect_type in enumerate(defect_types, start=1)}
        self._embeddings = model.encode_prompts(texts)[0].to(device)
        self._alphas = torch.tensor(
            model.noise_schedule.alphas_cumprod, dtype=torch.float32, device=device
        )
        has_good = any(s.defect_type == GOOD for s in samples)
        self._prior_weight = config.prior_weight if has_good else None
        if config.normalize_by_mask_area:
            self.per_defect = "matching" if config.objective == "disentangle" else "defect"

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        z0 = self._encode(batch, generator)
        rows = len(z0)
        noise = self.put(torch.randn(z0.shape, generator=generator))
        timestep = self.put(torch.randint(len(self._alphas), (rows,), generator=generator))
        defects = torch.tensor([self._index[defect_type] for defect_type in batch.defect_types])
        prompts = PromptEmbeddings(
            defect=self._embeddings[self.put(defects)],
            background=self._embeddings[:1].expand(rows, -1, -1),
            masked=self._embeddings[1:2].expand(rows, -1, -1),
        )
        mask = self.put(latent_mask(batch, self.model.downscale))
        inputs = (self.net, z0, mask, noise, timestep, self._alphas, prompts)
        defect_type, by_area = self.model.prediction_type, self.config.normalize_by_mask_area
        if self.config.objective == "denoise":
            return denoise(*inputs, prediction_type=defect_type, by_area=by_area)
        return disentangle(
            *inputs,
            prediction_type=defect_type,
            by_area=by_area,
            prior_weight=self._prior_weight,
            guidance=self.config.guidance,
        )

    def _encode(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Latents; never in float16, whose range the autoencoders of Stable Diffusion leave."""
        bf16 = self.config.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            return self.model.encode(self.put(torch.from_numpy(batch.pixels)), generator)

    def finish(self, crops: Crops) -> None:
        """Merge the LoRA, so that what is saved is a plain U-Net."""
        if self.config.lora:
            self.module.fuse_lora(safe_fusing=True)
            self.module.unload_lora()


def _add_lora(unet: UNet2DConditionModel, rank: int, seed: int) -> None:
    """LoRA (Hu et al. 2021) on all attention layers, the targets of diffusers' DreamBooth."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        unet.add_adapter(
            LoraConfig(
                r=rank,
                lora_alpha=rank,
                init_lora_weights="gaussian",
                target_modules=["to_q", "to_k", "to_v", "to_out.0"],
            )
        )


def latent_mask(batch: Batch, downscale: int) -> Tensor:
    """A latent pixel is masked if any image pixel under it is."""
    return nn.functional.max_pool2d(torch.from_numpy(batch.mask), downscale)
