"""Stable Diffusion directories of every kind open, and the mask does what Eqs. 10 and 11 say."""

from __future__ import annotations

import json

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel

from defectrt.errors import InputError
from defectrt.training.models.attention import Masking
from defectrt.training.models.stable_diffusion import (
    SIZES,
    MaskedUNet,
    ModelSize,
    new_model,
    open_model,
)

#: Importing diffusers and opening models takes seconds.
pytestmark = pytest.mark.slow

TINY = SIZES["tiny"]


@pytest.fixture(scope="module")
def model():
    return new_model(TINY)


@pytest.fixture
def rows(model):
    g = torch.Generator().manual_seed(0)
    embeddings, _ = model.encode_prompts(["hole", "good surface"])
    mask = torch.zeros(2, 1, 16, 16)
    mask[:, :, 4:8, 4:12] = 1
    return {
        "latent": torch.randn(2, 4, 16, 16, generator=g),
        "timestep": torch.tensor([10, 700]),
        "mask": mask,
        "inside": embeddings[[0, 0]],
        "outside": embeddings[[1, 1]],
    }


def unet(projection="conv", heads=2):
    """A U-Net of the forms found in Stable Diffusion 1.x (conv, 8) and 2.x (linear, per level)."""
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=16,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(32, 64),
        layers_per_block=1,
        cross_attention_dim=TINY.text,
        attention_head_dim=heads,
        use_linear_projection=projection == "linear",
        norm_num_groups=16,
    )


@pytest.mark.parametrize(
    ("projection", "heads"), [("conv", 2), ("linear", (2, 4)), ("linear", 2), ("conv", 4)]
)
def test_without_a_difference_between_prompts_it_is_the_plain_unet(projection, heads, rows):
    """With the same prompt inside and outside, the mask must change nothing."""
    plain = unet(projection, heads)
    with torch.no_grad():
        expected = plain(rows["latent"], rows["timestep"], rows["inside"]).sample
        rows["outside"] = rows["inside"]
        got = MaskedUNet(plain)(**rows)
    torch.testing.assert_close(got, expected, atol=2e-5, rtol=1e-5)


def test_the_prompt_inside_reaches_only_a_masked_image(model, rows):
    net = MaskedUNet(model.unet)
    other = model.encode_prompts(["scratch"])[0][[0, 0]]
    with torch.no_grad():
        masked, changed = net(**rows), net(**{**rows, "inside": other})
        rows["mask"] = torch.zeros_like(rows["mask"])
        empty, same = net(**rows), net(**{**rows, "inside": other})
    assert (masked - changed).abs().max() > 1e-4
    assert torch.equal(empty, same)


def test_a_mask_of_one_latent_pixel_brings_the_prompt_in_at_every_layer(model, rows):
    other = model.encode_prompts(["scratch"])[0][[0, 0]]
    rows["mask"] = torch.zeros_like(rows["mask"])
    rows["mask"][:, :, 13, 3] = 1
    seen = []

    def spy(attn, args, kwargs, out):
        if attn.is_cross_attention:
            seen.append(out)

    net = MaskedUNet(model.unet)
    hooks = [
        m.register_forward_hook(spy, with_kwargs=True)
        for m in net.modules()
        if hasattr(m, "is_cross_attention")
    ]
    with torch.no_grad():
        net(**rows)
        half = len(seen)
        net(**{**rows, "inside": other})
    for hook in hooks:
        hook.remove()
    assert half >= 5
    assert all((a - b).abs().max() > 0 for a, b in zip(seen[:half], seen[half:], strict=True))


def test_attention_maps_come_out_of_every_layer(model, rows):
    content = model.encode_prompts(["hole", "hole"])[1]
    masking = Masking(rows["mask"], content=content)
    with torch.no_grad():
        plain = MaskedUNet(model.unet)(**rows)
        out = MaskedUNet(model.unet)(**rows, masking=masking)
    layers = [
        m for m in model.unet.modules() if getattr(m, "is_cross_attention", False) and m.heads
    ]
    assert torch.equal(out, plain)
    assert len(masking.maps) == len(layers)
    assert {m.shape[-1] for m in masking.maps} == {16, 8}
    assert all(m.shape[:2] == (2, 1) and m.min() > 0 and m.max() < 1 for m in masking.maps)


def test_content_tokens_are_the_words_alone(model):
    embeddings, content = model.encode_prompts(["hole", "deep hole", ""])
    assert embeddings.shape == (3, 32, TINY.text)
    assert content.sum(1).tolist() == [4, 8, 0]
    assert content[:, 0].sum() == 0  # begin
    assert (embeddings[0] - embeddings[1]).abs().max() > 0.1


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_saved_models_open_again_here_and_in_diffusers(tmp_path, prediction_type):
    model = new_model(TINY, prediction_type=prediction_type)
    model.save(tmp_path / "m")
    again = open_model(tmp_path / "m")
    assert again.prediction_type == prediction_type
    for part in ("unet", "vae", "text_encoder"):
        before, after = (getattr(m, part).state_dict() for m in (model, again))
        assert before.keys() == after.keys()
        assert all(torch.equal(before[k], after[k]) for k in before)
    texts = ["a hole", ""]
    assert torch.equal(model.encode_prompts(texts)[0], again.encode_prompts(texts)[0])
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "m")
    image = pipeline("a hole", num_inference_steps=2, height=32, width=32, output_type="np").images
    assert image.shape == (1, 32, 32, 3)


def test_the_same_seed_gives_the_same_weights():
    one, two, other = (new_model(TINY, seed=s).unet.conv_in.weight for s in (0, 0, 1))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_latents_are_scaled_as_the_configuration_says(model):
    pixels = torch.rand(1, 3, 32, 32) * 2 - 1
    model.vae.register_to_config(scaling_factor=1.0)
    plain = model.encode(pixels)
    model.vae.register_to_config(scaling_factor=0.5)
    torch.testing.assert_close(model.encode(pixels), plain * 0.5)
    torch.testing.assert_close(model.decode(plain * 0.5), model.vae.decode(plain).sample)
    model.vae.register_to_config(scaling_factor=1.0)


def test_what_is_not_a_model_is_named(tmp_path):
    with pytest.raises(InputError, match="missing: unet, vae, text_encoder"):
        open_model(tmp_path)
    with pytest.raises(InputError, match=r"no/such/path.*not a Stable Diffusion directory"):
        open_model("no/such/path")


def test_pickled_weights_are_refused(tmp_path, model):
    model.save(tmp_path)
    weights = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(model.unet.state_dict(), weights.with_name("diffusion_pytorch_model.bin"))
    weights.unlink()
    with pytest.raises(InputError, match="unet has its weights as a pickle, which is never read"):
        open_model(tmp_path)


def test_a_damaged_model_is_refused(tmp_path, model):
    model.save(tmp_path)
    weights = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(InputError, match="cannot be opened"):
        open_model(tmp_path)


def test_window_and_scale_follow_from_the_configuration():
    model = new_model(ModelSize(window=64, vae=(16, 16, 16), unet=(32, 32), text=32))
    assert (model.downscale, model.window) == (4, 64)
    heads = {m.heads for m in model.unet.modules() if getattr(m, "is_cross_attention", False)}
    assert heads == {1}
    assert json.dumps(model.scheduler)
