"""The claims of Eq. 5, and the loss against its formula."""

from __future__ import annotations

import pytest
import torch

from defectrt.training.loop.objectives import (
    PromptEmbeddings,
    denoise,
    disentangle,
    masked_mean,
    noised,
    target,
)

B, C, S, T = 3, 4, 8, 100
ALPHAS = torch.linspace(0.999, 0.01, T)


@pytest.fixture
def batch():
    g = torch.Generator().manual_seed(0)
    mask = torch.zeros(B, 1, S, S)
    mask[0, :, 2:5, 3:6] = 1
    mask[1, :, 7, 7] = 1
    mask[2, :, :, :4] = 1
    return {
        "z0": torch.randn(B, C, S, S, generator=g),
        "mask": mask,
        "noise": torch.randn(B, C, S, S, generator=g),
        "timestep": torch.tensor([3, 50, 98]),
        "alphas": ALPHAS,
        "prompts": PromptEmbeddings(*torch.randn(3, B, 5, 6, generator=g)),
    }


class Recorder:
    """A predictor that mixes everything with everything, and remembers what it saw."""

    def __init__(self):
        g = torch.Generator().manual_seed(1)
        self.weight = torch.randn(C * S * S, C * S * S, generator=g) / (C * S * S) ** 0.5

    def __call__(self, latent, timestep, mask, inside, outside):
        self.seen = latent, timestep, mask, inside, outside
        bias = inside.mean((1, 2)) - outside.mean((1, 2)) + timestep / T
        out = (latent.flatten(1) @ self.weight).view_as(latent) + bias.view(-1, 1, 1, 1)
        if out.requires_grad:
            out.retain_grad()
        self.prediction = out
        return out


def test_equals_equation_5_as_printed(batch):
    predict = Recorder()
    terms = disentangle(predict, **batch, by_area=False)
    m, eps, z0 = batch["mask"], batch["noise"], batch["z0"]
    alpha = ALPHAS[batch["timestep"]].view(-1, 1, 1, 1)
    z_t = alpha.sqrt() * z0 + (1 - alpha).sqrt() * eps
    z_m = alpha.sqrt() * (1 - m) * z0 + (1 - alpha).sqrt() * (1 - m) * eps
    torch.testing.assert_close(predict.seen[0], torch.cat([z_t, z_m]))
    torch.testing.assert_close(z_m, (1 - m) * z_t)
    first, second = predict.prediction.chunk(2)
    whole = (eps - m * first - (1 - m) * second).square().mean()
    torch.testing.assert_close(sum(terms.values()), whole)


class Settled:
    """Predicts ``p`` for a defect and ``p_bg`` where no defect is in mind."""

    def __init__(self, p, p_bg):
        self.p, self.p_bg = p.requires_grad_(), p_bg

    def __call__(self, latent, timestep, mask, inside, outside):
        if len(latent) == 2 * B:
            return torch.cat([self.p, torch.zeros_like(self.p)])
        assert torch.equal(inside, outside)
        assert not mask.any()
        self.seen = latent
        return self.p_bg


@pytest.mark.parametrize("w", [1.5, 3.0])
def test_guidance_settles_where_sampling_with_it_would_be(batch, w):
    alpha = ALPHAS[batch["timestep"]].view(-1, 1, 1, 1)
    wanted = target("epsilon", batch["z0"], batch["noise"], alpha)
    p_bg = torch.randn(B, C, S, S, generator=torch.Generator().manual_seed(2))
    settled = Settled(p_bg + w * (wanted - p_bg), p_bg)
    assert disentangle(settled, **batch, guidance=w)["matching"] < 1e-10
    assert torch.equal(settled.seen, noised(batch["z0"], batch["noise"], alpha))
    assert disentangle(Settled(wanted.clone(), p_bg), **batch)["matching"] < 1e-10
    # gradient descent goes there: below it p is pulled up by 1/w of the distance
    short = Settled(wanted.clone(), p_bg)
    disentangle(short, **batch, guidance=w, by_area=False)["matching"].backward()
    away = -short.p.grad * short.p.numel() / 2
    m = batch["mask"]
    torch.testing.assert_close(away, m * (settled.p - short.p) / w, atol=1e-5, rtol=1e-4)


def test_prompts_go_to_their_branches(batch):
    predict = Recorder()
    disentangle(predict, **batch)
    _, timestep, mask, inside, outside = predict.seen
    p = batch["prompts"]
    assert torch.equal(inside, torch.cat([p.defect, p.masked]))
    assert torch.equal(outside, torch.cat([p.background, p.background]))
    assert torch.equal(timestep, batch["timestep"].repeat(2))
    assert torch.equal(mask, batch["mask"].repeat(2, 1, 1, 1))


def test_regularizer_does_not_depend_on_what_is_under_the_mask(batch):
    predict = Recorder()
    before = disentangle(predict, **batch)
    background = predict.prediction.chunk(2)[1]
    batch["z0"] = batch["z0"] + 100 * batch["mask"]
    batch["noise"] = batch["noise"] - 100 * batch["mask"]
    after = disentangle(predict, **batch)
    assert torch.equal(predict.prediction.chunk(2)[1], background)
    assert torch.equal(after["regularizer"], before["regularizer"])
    assert not torch.equal(after["matching"], before["matching"])


@pytest.mark.parametrize("by_area", [True, False])
@pytest.mark.parametrize(
    ("term", "branch", "zero_inside"), [("matching", 0, False), ("regularizer", 1, True)]
)
def test_gradient_stays_on_its_side_of_the_mask(batch, term, branch, zero_inside, by_area):
    predict = Recorder()
    predict.weight.requires_grad_()
    disentangle(predict, **batch, by_area=by_area)[term].backward()
    gradient = predict.prediction.grad.chunk(2)
    inside = batch["mask"].expand(-1, C, -1, -1).bool()
    here, there = (~inside, inside) if zero_inside else (inside, ~inside)
    assert gradient[branch][there].abs().max() == 0
    assert gradient[branch][here].abs().min() > 0
    assert gradient[1 - branch].abs().max() == 0


def test_gradient_of_the_regularizer_to_the_image_is_zero_under_the_mask(batch):
    batch["z0"].requires_grad_()
    disentangle(Recorder(), **batch)["regularizer"].backward()
    inside = batch["mask"].expand(-1, C, -1, -1).bool()
    assert batch["z0"].grad[inside].abs().max() == 0
    assert batch["z0"].grad[~inside].abs().max() > 0


@pytest.mark.parametrize("objective", [disentangle, denoise])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_a_perfect_prediction_costs_nothing(batch, objective, prediction_type):
    alpha = ALPHAS[batch["timestep"]].view(-1, 1, 1, 1)
    keep = 1 - batch["mask"]

    def perfect(latent, *_):
        full = target(prediction_type, batch["z0"], batch["noise"], alpha)
        masked = target(prediction_type, keep * batch["z0"], keep * batch["noise"], alpha)
        return torch.cat([full, masked])[: len(latent)]

    terms = objective(perfect, **batch, prediction_type=prediction_type)
    assert all(value == 0 for value in terms.values())


def test_targets_recover_each_other():
    g = torch.Generator().manual_seed(0)
    z0, eps = torch.randn(2, B, C, S, S, generator=g, dtype=torch.float64)
    alpha = torch.tensor([0.9, 0.5, 0.1], dtype=torch.float64).view(-1, 1, 1, 1)
    z_t, v = noised(z0, eps, alpha), target("v_prediction", z0, eps, alpha)
    torch.testing.assert_close(alpha.sqrt() * z_t - (1 - alpha).sqrt() * v, z0)
    torch.testing.assert_close(alpha.sqrt() * v + (1 - alpha).sqrt() * z_t, eps)
    with pytest.raises(ValueError, match="unknown prediction type"):
        target("score", z0, eps, alpha)


def test_by_area_a_small_defect_weighs_as_much_as_a_large_one():
    error = torch.ones(2, C, S, S)
    error[0] *= 3
    mask = torch.zeros(2, 1, S, S)
    mask[0, :, 0, 0] = 1
    mask[1] = 1
    assert masked_mean(error, mask, by_area=True) == 2
    assert masked_mean(error, mask, by_area=False) == pytest.approx((3 / 64 + 1) / 2)
    assert masked_mean(error, torch.zeros_like(mask), by_area=True) == 0
