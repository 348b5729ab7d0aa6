"""Eqs. 10 and 11: the operator against its definition, and the rule that keeps defects alive."""

from __future__ import annotations

import pytest
import torch

from defectrt.kernels.masked_attention import (
    attention_map,
    concatenated_softmax,
    resize_mask,
    two_softmaxes,
)


def case(b=2, h=3, n=16, l_in=5, l_out=7, d=8, dtype=torch.float64, seed=0):
    g = torch.Generator().manual_seed(seed)
    shapes = [(n,), (l_in,), (l_in,), (l_out,), (l_out,)]
    return [torch.randn(b, h, *s, d, generator=g, dtype=dtype) for s in shapes]


def literal(q, k_in, v_in, k_out, v_out, mask):
    """Eq. 10 query by query, in loops: slow, and nothing to get wrong."""
    out = torch.empty_like(q)
    for b, h, n in torch.cartesian_prod(*map(torch.arange, q.shape[:3])).tolist():
        parts = []
        for k, v in ((k_in, v_in), (k_out, v_out)):
            scores = [q[b, h, n].dot(key).item() / q.shape[-1] ** 0.5 for key in k[b, h]]
            weights = torch.tensor(scores, dtype=q.dtype).exp()
            parts.append((weights / weights.sum()) @ v[b, h])
        m = mask[b, n]
        out[b, h, n] = m * parts[0] + (1 - m) * parts[1]
    return out


@pytest.mark.parametrize("density", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("form", [two_softmaxes, concatenated_softmax])
def test_binary_mask_equals_the_equation(form, density):
    inputs = case()
    mask = (torch.rand(2, 16, generator=torch.Generator().manual_seed(1)) < density).double()
    torch.testing.assert_close(form(*inputs, mask), literal(*inputs, mask), atol=1e-13, rtol=0)


def test_soft_mask_takes_two_softmaxes():
    inputs = case()
    mask = torch.rand(2, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    soft = two_softmaxes(*inputs, mask)
    torch.testing.assert_close(soft, literal(*inputs, mask), atol=1e-13, rtol=0)
    assert (soft - concatenated_softmax(*inputs, mask)).abs().max() > 0.1


@pytest.mark.parametrize("side", ["inside", "outside"])
def test_the_other_prompt_has_no_influence_and_no_gradient(side):
    q, k_in, v_in, k_out, v_out = case()
    mask = torch.full((2, 16), float(side == "inside"), dtype=torch.float64)
    k, v = (k_out, v_out) if side == "inside" else (k_in, v_in)
    k.requires_grad_(), v.requires_grad_()
    concatenated_softmax(q, k_in, v_in, k_out, v_out, mask).sum().backward()
    assert k.grad.abs().max() == 0
    assert v.grad.abs().max() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_error_budget(dtype):
    """The single softmax may err twice as much as the reference does in the same precision."""
    exact = case(n=64, d=40)
    mask = (torch.rand(2, 64, generator=torch.Generator().manual_seed(1)) < 0.4).double()
    oracle = two_softmaxes(*exact, mask)
    low = [x.to(dtype) for x in exact]
    plain = (two_softmaxes(*low, mask.to(dtype)) - oracle).norm() / oracle.norm()
    fast = (concatenated_softmax(*low, mask.to(dtype)) - oracle).norm() / oracle.norm()
    assert 0 < fast <= 2 * plain + torch.finfo(dtype).eps


def test_attention_map_is_the_share_of_the_content_tokens():
    q, k_in, *_ = case()
    content = torch.tensor([[0, 1, 1, 0, 0]] * 2, dtype=torch.float64)
    weights = torch.stack(
        [(q[:, h] @ k_in[:, h].mT / q.shape[-1] ** 0.5).softmax(-1) for h in range(3)]
    )
    expected = weights[..., 1:3].sum(-1).mean(0)
    torch.testing.assert_close(attention_map(q, k_in, content), expected)
    everything = attention_map(q, k_in, torch.ones(2, 5, dtype=torch.float64))
    torch.testing.assert_close(everything, torch.ones_like(everything))


@pytest.mark.parametrize("size", [32, 16, 8, 4, 2, 1])
def test_a_defect_of_one_latent_pixel_is_alive_at_every_level(size):
    for y, x in [(0, 0), (13, 29), (31, 31), (7, 8)]:
        mask = torch.zeros(1, 1, 32, 32)
        mask[..., y, x] = 1
        small = resize_mask(mask, (size, size))
        assert small.shape == (1, 1, size, size)
        assert small.sum() == 1
        assert small[0, 0, y * size // 32, x * size // 32] == 1


def test_resizing_refuses_what_does_not_divide():
    with pytest.raises(ValueError, match="32x32 does not divide into 12x12"):
        resize_mask(torch.zeros(1, 1, 32, 32), (12, 12))
