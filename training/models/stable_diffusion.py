"""Stable Diffusion directories: opened, run under a mask, saved, and made from nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.models.resnet import ResnetBlock2D
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from defectrt.diffusion.schedule import NoiseSchedule
from defectrt.errors import InputError
from defectrt.files import parse_json, read_file

from .attention import Masking, mask_cross_attention
from .checks import check_files, check_kind

__all__ = [
    "SIZES",
    "MaskedUNet",
    "ModelSize",
    "StableDiffusion",
    "hide_progress_bars",
    "new_model",
    "open_model",
]

_MAX_INDEX = 1 << 20
_PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")


class MaskedUNet(nn.Module):
    """ε_θ(z, t, [C_in, C_out]) with masked inside-outside cross-attention.

    Wraps a diffusers U-Net; its parameters are the U-Net's own.
    """

    def __init__(self, unet: UNet2DConditionModel) -> None:
        """Take over ``unet`` and replace its attention processors."""
        super().__init__()
        self.unet = mask_cross_attention(unet)

    def forward(
        self,
        latent: Tensor,
        timestep: Tensor,
        mask: Tensor,
        inside: Tensor,
        outside: Tensor,
        masking: Masking | None = None,
    ) -> Tensor:
        """Predict (ε, v or x0, whatever the model was trained for), shaped like ``latent``.

        latent [B,C,h,w]; timestep [B] int64; mask [B,1,h,w], 1 = defect; inside, outside
        [B,L,D] prompt embeddings. Give ``masking`` to use a soft mask or to collect attention
        maps; its mask then counts.
        """
        masking = masking or Masking(mask)
        return self.unet(
            latent,
            timestep,
            encoder_hidden_states=torch.cat([inside, outside], dim=1),
            cross_attention_kwargs={"masking": masking},
            return_dict=False,
        )[0]


@dataclass
class StableDiffusion:
    """The parts of a Stable Diffusion model that the method uses.

    untrained  those of ``unet`` and ``vae`` that still have random weights
    """

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    scheduler: dict[str, Any]
    untrained: tuple[str, ...] = ()

    @property
    def noise_schedule(self) -> NoiseSchedule:
        """The noise schedule that the model was trained with."""
        return NoiseSchedule.from_config(self.scheduler)

    @property
    def prediction_type(self) -> str:
        """``epsilon``, ``v_prediction`` or ``sample``."""
        return str(self.scheduler.get("prediction_type", "epsilon"))

    @property
    def downscale(self) -> int:
        """Image pixels a latent pixel, along one side."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @property
    def window(self) -> int:
        """The side of the images that the U-Net was made for, in px."""
        return int(self.unet.config.sample_size) * self.downscale

    @torch.no_grad()
    def encode_prompts(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Embed P prompts: embeddings [P,L,D] and content-token weights [P,L] in {0,1}.

        Content tokens are those between begin and end: the words themselves.
        """
        length = min(
            self.tokenizer.model_max_length, self.text_encoder.config.max_position_embeddings
        )
        tokens = self.tokenizer(
            list(texts),
            padding="max_length",
            truncation=True,
            max_length=length,
            return_tensors="pt",
        )
        ids = tokens.input_ids.to(self.text_encoder.device)
        embeddings = self.text_encoder(ids)[0]
        special = torch.tensor([self.tokenizer.bos_token_id, self.tokenizer.eos_token_id])
        content = tokens.attention_mask.bool() & ~torch.isin(tokens.input_ids, special)
        return embeddings, content.to(embeddings)

    @torch.no_grad()
    def encode(self, pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """pixels [B,3,H,W] in [-1,1] -> scaled latents [B,C,h,w]; the mean without a generator."""
        posterior = self.vae.encode(pixels).latent_dist
        latent = posterior.mode() if generator is None else posterior.sample(generator)
        return (latent - self._shift) * self.vae.config.scaling_factor

    @torch.no_grad()
    def decode(self, latent: Tensor) -> Tensor:
        """Scaled latents [B,C,h,w] -> pixels [B,3,H,W], about [-1,1]."""
        return self.vae.decode(latent / self.vae.config.scaling_factor + self._shift).sample

    @property
    def _shift(self) -> float:
        return float(self.vae.config.shift_factor or 0.0)

    def save(self, directory: Path) -> None:
        """Write a plain diffusers directory, safetensors only, that diffusers itself opens."""
        directory.mkdir(parents=True, exist_ok=True)
        self.unet.save_pretrained(directory / "unet", safe_serialization=True)
        self.vae.save_pretrained(directory / "vae", safe_serialization=True)
        self.text_encoder.save_pretrained(directory / "text_encoder", safe_serialization=True)
        self.tokenizer.save_pretrained(directory / "tokenizer")
        DDIMScheduler.from_config(self.scheduler).save_pretrained(directory / "scheduler")
        index = _MODEL_INDEX | ({_UNTRAINED: list(self.untrained)} if self.untrained else {})
        (directory / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


#: Key of a model's index that names its parts of random weights; other programs skip it.
_UNTRAINED = "_untrained"
_MODEL_INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "feature_extractor": [None, None],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def open_model(source: str | os.PathLike[str]) -> StableDiffusion:
    """Open a Stable Diffusion model in diffusers' format, from a directory or a hub id.

    Only safetensors weights are read, never pickles, and none before the model's descriptions were
    looked at. Raises `InputError` naming the missing parts and files of a directory, for another
    kind of model (one for inpainting, SDXL), or saying that the hub could not be reached.
    """
    name = os.fspath(source)
    if Path(name).exists() or name.count("/") != 1:
        missing = [part for part in _PARTS if not (Path(name) / part).is_dir()]
        if missing:
            raise InputError(
                f"{name}: not a Stable Diffusion directory in diffusers' format; "
                f"missing: {', '.join(missing)}. Give a directory that holds "
                f"{', '.join(_PARTS)}, or a hub id such as owner/name"
            )
        check_files(Path(name))
    hide_progress_bars()
    try:
        check_kind(
            name,
            {
                "unet": UNet2DConditionModel.load_config(name, subfolder="unet"),
                "vae": AutoencoderKL.load_config(name, subfolder="vae"),
                "text_encoder": CLIPTextConfig.get_config_dict(name, subfolder="text_encoder")[0],
            },
        )
        model = StableDiffusion(
            unet=UNet2DConditionModel.from_pretrained(name, subfolder="unet", use_safetensors=True),
            vae=AutoencoderKL.from_pretrained(name, subfolder="vae", use_safetensors=True),
            text_encoder=CLIPTextModel.from_pretrained(
                name, subfolder="text_encoder", use_safetensors=True
            ),
            tokenizer=CLIPTokenizer.from_pretrained(name, subfolder="tokenizer"),
            scheduler=dict(DDIMScheduler.load_config(name, subfolder="scheduler")),
            untrained=_untrained(Path(name)),
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        what = " ".join(str(error).split())[:300]
        raise InputError(f"{name}: the model cannot be opened: {what}") from error
    for part in (model.unet, model.vae, model.text_encoder):
        part.requires_grad_(False).eval().float()  # stored in half precision, perhaps
    return model


def _untrained(directory: Path) -> tuple[str, ...]:
    index = directory / "model_index.json"
    values = parse_json(read_file(index, _MAX_INDEX)) if index.is_file() else {}
    named = values.get(_UNTRAINED, []) if isinstance(values, dict) else []
    return tuple(part for part in ("unet", "vae") if part in named)


@dataclass(frozen=True)
class ModelSize:
    """Dimensions of a model made from nothing.

    window     image side the model is meant for, in px
    vae        channels of each VAE level; the latent is 2^(levels-1) times smaller
    unet       channels of each U-Net level; all but the first attend to themselves,
               all attend to the prompts
    head_width channels an attention head
    text       width of the text encoder
    """

    window: int
    vae: tuple[int, ...]
    unet: tuple[int, ...]
    layers: int = 1
    head_width: int = 32
    text: int = 64
    latent_channels: int = 4


#: ``tiny`` runs a whole job in seconds, for tests; ``small`` learns real defects on a CPU, in
#: grey; ``colour`` is the same with room for colour; ``surfaces`` is the one of the
#: bundled engine, ``surfaces-256`` its larger window for a GPU.
SIZES = {
    "tiny": ModelSize(window=32, vae=(16, 16), unet=(32, 32), text=32),
    "small": ModelSize(window=64, vae=(32, 64), unet=(64, 96, 128)),
    "colour": ModelSize(window=64, vae=(32, 64), unet=(64, 96, 128), latent_channels=6),
    "surfaces": ModelSize(window=96, vae=(16, 48, 64), unet=(64, 96, 128), latent_channels=8),
    "surfaces-256": ModelSize(
        window=256, vae=(32, 64, 96, 96), unet=(64, 96, 128), latent_channels=16
    ),
}


def new_model(
    size: ModelSize, *, prediction_type: str = "epsilon", seed: int = 0
) -> StableDiffusion:
    """Make a Stable Diffusion model of random weights from nothing, offline.

    The tokenizer spells words out in bytes, and the text encoder stays as it was drawn: prompts
    only need to be told apart. The same ``seed`` gives the same weights.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return StableDiffusion(
            unet=_new_unet(size),
            vae=_new_vae(size),
            text_encoder=_new_text_encoder(size),
            tokenizer=_new_tokenizer(),
            scheduler=dict(
                DDIMScheduler(
                    beta_start=0.00085,
                    beta_end=0.012,
                    beta_schedule="scaled_linear",
                    clip_sample=False,
                    set_alpha_to_one=False,
                    steps_offset=1,
                    prediction_type=prediction_type,
                ).config
            ),
            untrained=("unet", "vae"),
        )


def _new_unet(size: ModelSize) -> UNet2DConditionModel:
    levels = len(size.unet)
    return UNet2DConditionModel(
        sample_size=size.window // 2 ** (len(size.vae) - 1),
        in_channels=size.latent_channels,
        out_channels=size.latent_channels,
        down_block_types=("CrossAttnDownBlock2D",) * levels,
        up_block_types=("CrossAttnUpBlock2D",) * levels,
        block_out_channels=size.unet,
        layers_per_block=size.layers,
        cross_attention_dim=size.text,
        # diffusers' trap: this is the NUMBER of heads a level in Stable Diffusion's form
        attention_head_dim=tuple(channels // size.head_width for channels in size.unet),
        # full-resolution self-attention would cost more than the rest of a small U-Net
        only_cross_attention=(True,) + (False,) * (levels - 1),
        norm_num_groups=16,
    )


def _new_vae(size: ModelSize) -> AutoencoderKL:
    levels = len(size.vae)
    vae = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=size.vae,
        latent_channels=size.latent_channels,
        norm_num_groups=4,
        sample_size=size.window,
        scaling_factor=1.0,
        mid_block_add_attention=False,
    )
    return _pass_through(vae)


@torch.no_grad()
def _pass_through(vae: AutoencoderKL) -> AutoencoderKL:
    """Let an untrained autoencoder start as a shrunk image instead of as nothing.

    By default every convolution outside the residual blocks loses 40 % of the signal, and a dozen
    of them most of it: colour then takes thousands of steps to appear. Here these hand the first
    channels on, halving by means over 2x2 px, residual blocks start at 0, and the latent with
    little noise; 100 steps bring the levels as near as 1,000 did before.
    """
    for name, module in vae.named_modules():
        if isinstance(module, ResnetBlock2D):
            nn.init.zeros_(module.conv2.weight)
            nn.init.zeros_(module.conv2.bias)
        elif isinstance(module, nn.Conv2d) and not name.endswith(("conv1", "conv2")):
            identity = nn.init.dirac_(torch.empty_like(module.weight))
            if "downsamplers" in name:  # padded below and to the right only
                mean = torch.zeros_like(identity)
                mean[:, :, :2, :2] = identity[:, :, 1:2, 1:2] / 4
                identity = mean
            module.weight.mul_(0.2).add_(identity)
    noise = vae.quant_conv.weight[vae.config.latent_channels :]
    noise.mul_(0.1)
    vae.quant_conv.bias[len(noise) :] = -5.0  # logarithm of the latent's variance
    return vae


def _new_text_encoder(size: ModelSize) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(_byte_vocabulary()),
            hidden_size=size.text,
            intermediate_size=2 * size.text,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=32,
            bos_token_id=_byte_vocabulary()["<|startoftext|>"],
            eos_token_id=_byte_vocabulary()["<|endoftext|>"],
            pad_token_id=_byte_vocabulary()["<|endoftext|>"],
        )
    )


def _byte_vocabulary() -> dict[str, int]:
    """CLIP's byte alphabet, alone and at the end of a word, and its two marks."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [256 + i for i in range(256 - len(printable))]
    letters = [chr(code) for code in printable + others]
    words = [*letters, *(letter + "</w>" for letter in letters)]
    return {word: i for i, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}


def _new_tokenizer() -> CLIPTokenizer:
    with TemporaryDirectory() as folder:
        vocabulary, merges = Path(folder, "vocab.json"), Path(folder, "merges.txt")
        vocabulary.write_text(json.dumps(_byte_vocabulary()), encoding="utf-8")
        merges.write_text("#version: 0.2\n", encoding="utf-8")
        return CLIPTokenizer(str(vocabulary), str(merges), model_max_length=32)


def hide_progress_bars() -> None:
    """The libraries' own progress bars would stand between ours, and speak when all is quiet."""
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()
