"""The row step with another form of GEGLU is the row step, and reads the same tables."""

from __future__ import annotations

import pytest
import torch

from defectrt.export.fused import fuse_geglu, split_geglu
from defectrt.export.rowstep import RowStep, map_size
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
def test_with_kernels_it_is_the_same_step(model, step):
    """What runs on a GPU with them, here with the operators' CPU form."""
    inputs = rows(model)
    plain = step(*inputs)
    step.kernels = True
    for got, expected in zip(step(*inputs), plain, strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


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
