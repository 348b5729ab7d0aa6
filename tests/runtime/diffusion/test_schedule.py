"""Schedules against diffusers, which was written by others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler, DPMSolverMultistepScheduler

from defectrt.diffusion.schedule import NoiseSchedule, to_epsilon
from defectrt.errors import InputError

CONFIGS = [
    {"beta_schedule": "linear"},
    {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    {"beta_schedule": "squaredcos_cap_v2"},
    {"beta_schedule": "linear", "num_train_timesteps": 200},
    {"beta_schedule": "linear", "trained_betas": [0.01 + 0.001 * i for i in range(40)]},
]


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@pytest.mark.parametrize("to_one", [True, False])
def test_alphas(config, to_one):
    config = {**config, "set_alpha_to_one": to_one}
    ours, theirs = NoiseSchedule.from_config(config), DDIMScheduler.from_config(config)
    np.testing.assert_allclose(ours.alphas_cumprod, theirs.alphas_cumprod.numpy(), rtol=2e-4)
    assert ours.final_alpha == pytest.approx(float(theirs.final_alpha_cumprod), rel=1e-6)


@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("steps", [1, 3, 7, 10, 50, 300])
def test_timesteps(spacing, offset, steps):
    config = {"timestep_spacing": spacing, "steps_offset": offset}
    theirs = DDIMScheduler.from_config(config)
    theirs.set_timesteps(steps)
    ours = NoiseSchedule.from_config(config).timesteps(steps)
    np.testing.assert_array_equal(ours, theirs.timesteps.numpy()[::-1])
    if spacing == "linspace":
        return  # diffusers' inverse scheduler does not know it
    inverse = DDIMInverseScheduler.from_config(config)
    inverse.set_timesteps(steps)
    np.testing.assert_array_equal(ours, inverse.timesteps.numpy())


@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
@pytest.mark.parametrize("convention", ["paper", "diffusers"])
def test_levels_form_one_chain(spacing, convention):
    """Generation undoes inversion step by step: both are the same levels, up and down."""
    schedule = NoiseSchedule.from_config({"timestep_spacing": spacing}).tables(20, convention)
    for up, down in zip(schedule.inversion, schedule.generation[::-1], strict=True):
        assert up.a * down.a == pytest.approx(1, abs=1e-12)
        assert up.b * down.a == pytest.approx(-down.b, abs=1e-12)
    grid = [row.timestep for row in schedule.generation[::-1]]
    evaluated = [row.timestep for row in schedule.inversion]
    assert evaluated == (grid if convention == "diffusers" else [evaluated[0], *grid[:-1]])
    assert 0 <= evaluated[0] <= grid[0]


def test_a_step_is_ddim_as_printed():
    """Eq. 3 and Eq. 4 with their square roots, number by number."""
    noise = NoiseSchedule.from_config(CONFIGS[1] | {"steps_offset": 1, "set_alpha_to_one": False})
    schedule = noise.tables(50)
    alpha = noise.alphas_cumprod
    z, eps = 0.7, -1.3
    for row in schedule.generation[:-1]:
        t, before = alpha[row.timestep], alpha[row.timestep - 20]
        printed = before**0.5 * (
            (1 / t) ** 0.5 * z + ((1 / before - 1) ** 0.5 - (1 / t - 1) ** 0.5) * eps
        )
        assert row.a * z + row.b * eps == pytest.approx(printed, abs=1e-12)
    for row in schedule.inversion[1:]:
        before, t = alpha[row.timestep], alpha[row.timestep + 20]
        printed = t**0.5 * (
            (1 / before) ** 0.5 * z + ((1 / t - 1) ** 0.5 - (1 / before - 1) ** 0.5) * eps
        )
        assert row.a * z + row.b * eps == pytest.approx(printed, abs=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 3, 8, 20])
def test_the_second_order_is_diffusers_dpmsolver(steps):
    """The same z from the same ε, step by step; only the first and the last are of first order."""
    config = CONFIGS[1] | {"steps_offset": 1}
    theirs = DPMSolverMultistepScheduler.from_config(
        config | {"final_sigmas_type": "zero", "euler_at_final": True}
    )
    noise = replace(
        NoiseSchedule.from_config(config),
        alphas_cumprod=theirs.alphas_cumprod.double().numpy(),  # their rounding is not compared
    )
    theirs.set_timesteps(timesteps=noise.timesteps(steps, "dpmsolver++")[::-1].tolist())
    rng = np.random.default_rng(0)
    z, clean = rng.normal(size=99), np.zeros(99)
    for row in noise.tables(steps, solver="dpmsolver++").generation:
        eps = rng.normal(size=99)
        expected = theirs.step(torch.tensor(eps), row.timestep, torch.tensor(z)).prev_sample
        ours = row.a * z + row.b * eps + row.c * clean
        np.testing.assert_allclose(ours, expected.numpy(), atol=1e-5)
        clean = (z - (1 - row.alpha) ** 0.5 * eps) / row.alpha**0.5
        z = ours
    assert sum(row.c != 0 for row in noise.tables(steps, solver="dpmsolver++").generation) == max(
        0, steps - 2
    )


@pytest.mark.parametrize("solver", ["ddim", "dpmsolver++"])
def test_every_step_knows_its_level(solver):
    noise = NoiseSchedule.from_config(CONFIGS[1])
    schedule = noise.tables(10, solver=solver)
    assert [row.alpha for row in schedule.generation] == [
        noise.alphas_cumprod[row.timestep] for row in schedule.generation
    ]
    assert [row.alpha for row in schedule.inversion[1:]] == [
        row.alpha for row in schedule.generation[:0:-1]
    ]


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_predictions_become_the_same_epsilon(kind):
    rng = np.random.default_rng(0)
    z0, eps, alpha = rng.normal(size=9), rng.normal(size=9), rng.uniform(0.01, 0.99, 9)
    latent = alpha**0.5 * z0 + (1 - alpha) ** 0.5 * eps
    velocity = alpha**0.5 * eps - (1 - alpha) ** 0.5 * z0
    prediction = {"epsilon": eps, "v_prediction": velocity, "sample": z0}[kind]
    np.testing.assert_allclose(to_epsilon(kind, prediction, latent, alpha), eps, atol=1e-12)
    as_torch = [torch.tensor(x) for x in (prediction, latent, alpha)]
    np.testing.assert_allclose(to_epsilon(kind, *as_torch).numpy(), eps, atol=1e-12)


def test_everything_wrong_is_named_at_once():
    with pytest.raises(InputError) as error:
        NoiseSchedule.from_config(
            {
                "beta_schedule": "sigmoid",
                "timestep_spacing": "karras",
                "prediction_type": "flow",
                "rescale_betas_zero_snr": True,
            }
        )
    for word in ("sigmoid", "karras", "flow", "rescale_betas_zero_snr", "scaled_linear"):
        assert word in str(error.value)


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_steps_out_of_range(steps):
    with pytest.raises(InputError, match="choose from 1 to 1000"):
        NoiseSchedule.from_config({}).tables(steps)


def test_an_offset_past_the_end_is_refused():
    with pytest.raises(InputError, match="pass the last timestep, 999"):
        NoiseSchedule.from_config({"steps_offset": 1}).tables(1000)


def test_betas_that_end_in_nothing_but_noise_are_refused():
    with pytest.raises(InputError, match=r"betas outside \(0,1\)"):
        NoiseSchedule.from_config({"trained_betas": [0.1, 1.0]})
    with pytest.raises(InputError, match="paper or diffusers"):
        NoiseSchedule.from_config({}).tables(10, "other")
    with pytest.raises(InputError, match=r"ddim or dpmsolver\+\+"):
        NoiseSchedule.from_config({}).tables(10, solver="euler")
    with pytest.raises(InputError, match="epsilon, v_prediction, sample"):
        to_epsilon("score", 0, 0, 0.5)
