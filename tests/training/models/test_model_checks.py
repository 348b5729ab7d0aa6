"""A model is looked at before its weights are read: one sentence for what cannot be used."""

from __future__ import annotations

import json

import pytest

from defectrt.errors import InputError
from defectrt.training.bundled import BUNDLED_RUN
from defectrt.training.models.checks import CONFIGS, check_files, check_kind
from defectrt.training.models.stable_diffusion import open_model

#: Importing diffusers takes seconds.
pytestmark = pytest.mark.slow

MODEL = BUNDLED_RUN / "model"
SD15 = {
    "unet": {"in_channels": 4, "out_channels": 4, "cross_attention_dim": 768},
    "vae": {"latent_channels": 4},
    "text_encoder": {"hidden_size": 768},
}


def described():
    return {part: json.loads((MODEL / part / "config.json").read_text()) for part in CONFIGS}


@pytest.mark.parametrize("configs", [SD15, described()], ids=["sd15", "bundled"])
def test_what_it_is_for_is_taken(configs):
    check_kind("model", configs)


KINDS = {
    "inpainting": ({"unet": {"in_channels": 9}}, "an inpainting model: its U-Net takes 9 channels"),
    "pix2pix": ({"unet": {"in_channels": 8}}, "its U-Net takes 8 channels, .* gives 4"),
    "upscaler": ({"unet": {"num_class_embeds": 1000}}, "takes a class beside the prompt"),
    "variance": ({"unet": {"out_channels": 8}}, "takes 4 channels and gives 8"),
    "xl": (
        {"unet": {"addition_embed_type": "text_time", "cross_attention_dim": 2048}},
        "Stable Diffusion XL or a relative: .* more than one text encoder",
    ),
    "image prompts": ({"unet": {"encoder_hid_dim_type": "image_proj"}}, "takes image_proj"),
    "mixed": ({"text_encoder": {"hidden_size": 1024}}, "prompts are 1024 wide, .* takes 768"),
}


@pytest.mark.parametrize(("other", "said"), KINDS.values(), ids=KINDS)
def test_another_kind_of_model_is_one_sentence(other, said):
    configs = {part: SD15[part] | other.get(part, {}) for part in SD15}
    with pytest.raises(InputError, match=said) as raised:
        check_kind("model", configs)
    assert str(raised.value).count("\n") == 0


@pytest.fixture
def model(tmp_path):
    """The bundled model's files by their names, all of them empty but the descriptions."""
    for part, (config, weights) in CONFIGS.items():
        (tmp_path / part).mkdir()
        (tmp_path / part / config).write_bytes((MODEL / part / config).read_bytes())
        (tmp_path / part / f"{weights}.safetensors").write_bytes(b"")
    for part in ("tokenizer", "scheduler"):
        (tmp_path / part).mkdir()
    return tmp_path


def test_whole_ones_are_taken(model):
    check_files(MODEL)
    check_files(model)
    weights = model / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_name(f"{weights.name}.index.json"))
    check_files(model)


@pytest.mark.parametrize(
    ("name", "instead", "said"),
    [
        ("unet/diffusion_pytorch_model.safetensors", None, "unet has no diffusion_pytorch_model"),
        (
            "vae/diffusion_pytorch_model.safetensors",
            "vae/diffusion_pytorch_model.fp16.safetensors",
            "vae has no .*, only the variant fp16",
        ),
        (
            "text_encoder/model.safetensors",
            "text_encoder/pytorch_model.bin",
            "text_encoder has its weights as a pickle",
        ),
        ("unet/config.json", None, r"unet has no config\.json"),
    ],
)
def test_a_missing_file_is_named_before_anything_is_read(model, name, instead, said):
    if instead:
        (model / name).rename(model / instead)
    else:
        (model / name).unlink()
    with pytest.raises(InputError, match=f"the model is not whole: {said}") as raised:
        open_model(model)
    assert str(raised.value).count("\n") == 0


@pytest.mark.parametrize("channels", [17, 9])
def test_the_weights_of_another_kind_are_not_read(model, channels):
    path = model / "unet" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"in_channels": channels}))
    with pytest.raises(InputError, match=f"takes {channels} channels"):
        open_model(model)


def test_weights_that_are_cut_are_one_sentence(model):
    with pytest.raises(InputError, match="the model cannot be opened") as raised:
        open_model(model)
    assert str(raised.value).count("\n") == 0
