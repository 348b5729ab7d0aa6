"""The row step with another form of GEGLU is the row step, and reads the same tables."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.attention_processor import Attention

from defectrt.export.fused import fuse_geglu, split_geglu
from defectrt.export.rowstep import RowStep, _PromptTable, _Row, map_size
from defectrt.training.models.stable_diffusion import SIZES, new_model

#: Importing diffusers and opening models takes seconds.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return new_model(SIZES["tiny"], prediction_type="v_prediction")


@pytest.fixture
def step(model):
    embeddings, content = model.encode_prompts(["good surface", "", "a long scratch"])
    return RowStep(model, embeddings, content, map_size(model))


def rows(model, count=3):
    g = torch.Generator().manual_seed(1)
    side, channels = model.unet.config.sample_size, model.unet.config.in_channels
    mask = torch.zeros(count, 1, side, side)
    mask[:, :, 2:5, 3:7] = 1
    turn = torch.arange(count)
    return (
        torch.randn(count, channels, side, side, generator=g),
        torch.tensor([10, 500, 990])[:count],
        mask,
        turn % 3,
        (turn + 1) % 3,
        torch.rand(count, generator=g) + 0.5,
        torch.randn(count, generator=g),
        1 - mask,
        torch.randn(count, channels, side, side, generator=g),
    )


@torch.no_grad()
def test_a_fused_geglu_changes_rounding_only(model, step):
    inputs = rows(model)
    plain = step(*inputs)
    kinds = [type(m).__name__ for m in model.unet.modules()]
    assert fuse_geglu(step.unet) == kinds.count("GEGLU") > 0
    assert fuse_geglu(step.unet) == 0
    for fused, before in zip(step(*inputs), plain, strict=True):
        torch.testing.assert_close(fused, before, rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_split_geglu_changes_rounding_only(model, step):
    inputs = rows(model)
    plain = step(*inputs)
    kinds = [type(m).__name__ for m in model.unet.modules()]
    assert split_geglu(step) == kinds.count("GEGLU") > 0
    assert fuse_geglu(step.unet) == 0
    for split, before in zip(step(*inputs), plain, strict=True):
        torch.testing.assert_close(split, before, rtol=0, atol=1e-5)


@torch.no_grad()
def test_the_operands_of_the_kernel_give_what_the_composed_form_gives(model, step):
    """What runs on a GPU, called here with the operators' CPU form."""
    _, _, mask, inside, outside, *_ = rows(model)
    layers = [m for m in step.unet.modules() if isinstance(m, Attention) and m.is_cross_attention]
    assert layers
    for layer in layers:
        assert isinstance(layer.processor, _PromptTable)
        hidden = torch.randn(3, mask.shape[-1] ** 2, layer.to_q.in_features)
        composed = _Row(mask, inside, outside, step.content[inside], 10**6)
        expected = layer.processor(layer, hidden, masking=composed)
        q = layer.to_q(hidden).unflatten(-1, (layer.heads, -1)).transpose(1, 2)
        fused = _Row(mask, inside, outside, step.content, 10**6)
        out = layer.processor._fused(q, fused, mask, mapped=True)
        out = layer.to_out[0](out.transpose(1, 2).flatten(2))
        torch.testing.assert_close(out, expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(fused.maps[0], composed.maps[0], rtol=0, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits_inside_and_float32_at_the_boundary(model, step, dtype):
    inputs = rows(model)
    full, full_map = step(*inputs)
    step.unet.to(dtype)
    half, half_map = step(*inputs)
    assert half.dtype == torch.float32
    assert 0 < (half - full).norm() / full.norm() < 8 * torch.finfo(dtype).eps
    assert (half_map - full_map).abs().max() < 8 * torch.finfo(dtype).eps
