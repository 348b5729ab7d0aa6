"""What a Stable Diffusion model has to be, told from its descriptions, before weights are read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from defectrt.errors import InputError

__all__ = ["CONFIGS", "check_files", "check_kind"]

#: The parts with weights: what describes each, and the name of its weights.
CONFIGS = {
    "unet": ("config.json", "diffusion_pytorch_model"),
    "vae": ("config.json", "diffusion_pytorch_model"),
    "text_encoder": ("config.json", "model"),
}


def check_files(directory: Path) -> None:
    """Refuse a directory in which a file is missing that is going to be read.

    Raises `InputError` with one sentence: what is missing, and what is there instead.
    """
    faults = [fault for part in CONFIGS for fault in _missing(directory / part, *CONFIGS[part])]
    if faults:
        raise InputError(f"{directory}: the model is not whole: {'; '.join(faults)}")


def check_kind(name: str, configs: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse what is no Stable Diffusion 1 or 2 for text to images, by the parts' ``configs``.

    Raises `InputError` with one sentence: what it is, and what to take instead.
    """
    if fault := next(_strange(configs["unet"], configs["vae"], configs["text_encoder"]), None):
        raise InputError(
            f"{name}: {fault}; take a model like Stable Diffusion 1.5 or 2.1, with one text encoder"
        )


def _missing(part: Path, config: str, weights: str) -> Iterator[str]:
    if not (part / config).is_file():
        yield f"{part.name} has no {config}"
    names = {path.name for path in part.iterdir() if path.is_file()}
    plain = f"{weights}.safetensors"
    if names & {plain, f"{plain}.index.json"}:
        return
    variants = sorted(
        name.removeprefix(f"{weights}.").partition(".")[0]
        for name in names
        if name.startswith(f"{weights}.") and name.endswith(".safetensors")
    )
    if variants:
        yield (
            f"{part.name} has no {plain}, only the variant {', '.join(variants)}: "
            "rename its file, or download the model without a variant"
        )
    elif any(name.endswith((".bin", ".ckpt", ".pt", ".pth")) for name in names):
        yield (
            f"{part.name} has its weights as a pickle, which is never read: save it with "
            "safe_serialization=True"
        )
    else:
        yield f"{part.name} has no {plain}"


def _strange(
    unet: Mapping[str, Any], vae: Mapping[str, Any], text: Mapping[str, Any]
) -> Iterator[str]:
    """What makes it another kind of model."""
    channels, given = unet.get("in_channels", 4), vae.get("latent_channels", 4)
    if unet.get("addition_embed_type"):
        yield (
            "Stable Diffusion XL or a relative: its U-Net takes more than one text encoder "
            f"(addition_embed_type {unet['addition_embed_type']})"
        )
    if channels == 2 * given + 1:
        yield (f"an inpainting model: its U-Net takes {channels} channels, {given} of them latents")
    if channels != given:
        yield f"its U-Net takes {channels} channels, and its autoencoder gives {given}"
    if unet.get("out_channels", 4) != channels:
        yield f"its U-Net takes {channels} channels and gives {unet['out_channels']}"
    if unet.get("class_embed_type") or unet.get("num_class_embeds"):
        yield "its U-Net takes a class beside the prompt, as upscalers do"
    if unet.get("encoder_hid_dim_type"):
        yield f"its U-Net takes {unet['encoder_hid_dim_type']} beside the prompt"
    widths = unet.get("cross_attention_dim", 1280)
    if text.get("hidden_size") not in {*(widths if isinstance(widths, list) else [widths])}:
        yield (
            f"its prompts are {text.get('hidden_size')} wide, and its U-Net takes {widths}: the "
            "parts are of different models"
        )
