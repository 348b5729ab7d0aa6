"""Noise schedules and their steps as tables of (t, a, b, c, α).

DDIM between two noise levels, in either direction (Eqs. 3 and 4), is linear in z and ε:

    z' = a z + b ε      a = √(α'/α)      b = √(1-α') - a √(1-α)

and so is a step of second order (DPM-Solver++ 2M, Lu et al. 2022), with the clean latent that the
step before foresaw, z_0 = (z - √(1-α) ε) / √α:

    z' = a z + b ε + c z_0

so a schedule is a list of five numbers a step, and no host needs to know where they come from.
α is the cumulative product, diffusers' ``alphas_cumprod``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError

__all__ = ["Convention", "NoiseSchedule", "Schedule", "Solver", "StepRow", "to_epsilon"]

#: Where inversion evaluates ε: at (z_{t-1}, t-1) as Eq. 8 says, or at (z_{t-1}, t) as diffusers.
Convention = Literal["paper", "diffusers"]

#: How generation steps: as the paper does, or by the second order multistep of DPM-Solver++, which
#: needs fewer steps.
Solver = Literal["ddim", "dpmsolver++"]

Array = TypeVar("Array")


class StepRow(NamedTuple):
    """One step: ε is evaluated at ``timestep``, then z' = a z + b ε + c z_0.

    z_0 is what the step before foresaw, and c is 0 where there is none. ``alpha`` is the level that
    z has before the step.
    """

    timestep: int
    a: float
    b: float
    c: float
    alpha: float


@dataclass(frozen=True)
class Schedule:
    """All steps of a job: inversion from clean to noise, generation from noise to clean."""

    inversion: tuple[StepRow, ...]
    generation: tuple[StepRow, ...]

    def __len__(self) -> int:
        """Steps one way."""
        return len(self.generation)


def _linear(start: float, end: float, n: int) -> NDArray[np.float64]:
    return np.linspace(start, end, n)


def _scaled_linear(start: float, end: float, n: int) -> NDArray[np.float64]:
    return np.linspace(start**0.5, end**0.5, n) ** 2


def _squared_cosine(start: float, end: float, n: int) -> NDArray[np.float64]:
    """Nichol and Dhariwal 2021; ``start`` and ``end`` play no part, as in diffusers."""
    bar = np.cos((np.arange(n + 1) / n + 0.008) / 1.008 * np.pi / 2) ** 2
    return np.asarray(np.minimum(1 - bar[1:] / bar[:-1], 0.999))


_BETAS: dict[str, Callable[[float, float, int], NDArray[np.float64]]] = {
    "linear": _linear,
    "scaled_linear": _scaled_linear,
    "squaredcos_cap_v2": _squared_cosine,
}
_SPACINGS = ("leading", "linspace", "trailing")
_PREDICTIONS = ("epsilon", "v_prediction", "sample")


@dataclass(frozen=True)
class NoiseSchedule:
    """The schedule a model was trained with, and how its timesteps are spaced.

    alphas_cumprod  [T] float64, falling
    final_alpha     α of the clean end: 1, or ``alphas_cumprod[0]``
    """

    alphas_cumprod: NDArray[np.float64]
    final_alpha: float
    spacing: str = "leading"
    steps_offset: int = 0
    prediction_type: str = "epsilon"

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> NoiseSchedule:
        """Read a diffusers ``scheduler_config.json``, with diffusers' defaults.

        Raises `InputError` naming everything in it that cannot be honoured.
        """
        spacing = config.get("timestep_spacing", "leading")
        prediction = config.get("prediction_type", "epsilon")
        kind = config.get("beta_schedule", "linear")
        faults = [
            f"{name} {value!r} (one of {', '.join(known)})"
            for name, value, known in (
                ("beta_schedule", kind, _BETAS),
                ("timestep_spacing", spacing, _SPACINGS),
                ("prediction_type", prediction, _PREDICTIONS),
            )
            if value not in known
        ]
        if config.get("rescale_betas_zero_snr"):
            faults.append("rescale_betas_zero_snr (DDIM inversion divides by the last α, then 0)")
        if faults:
            raise InputError("the scheduler configuration is not supported: " + "; ".join(faults))
        betas = config.get("trained_betas")
        if betas is None:
            betas = _BETAS[kind](
                config.get("beta_start", 0.0001),
                config.get("beta_end", 0.02),
                config.get("num_train_timesteps", 1000),
            )
        alphas = np.asarray(np.cumprod(1 - np.asarray(betas, np.float64)), np.float64)
        if not (alphas[-1] > 0 and (np.diff(alphas, prepend=1.0) < 0).all()):
            raise InputError("the scheduler configuration is not supported: betas outside (0,1)")
        return cls(
            alphas_cumprod=alphas,
            final_alpha=1.0 if config.get("set_alpha_to_one", True) else float(alphas[0]),
            spacing=spacing,
            steps_offset=config.get("steps_offset", 0),
            prediction_type=prediction,
        )

    def timesteps(self, steps: int, solver: Solver = "ddim") -> NDArray[np.int64]:
        """``steps`` timesteps, rising: for DDIM spaced as diffusers spaces them.

        For the second order evenly in λ = log √(α/(1-α)), from the last one down to one step short
        of the first (Lu et al. 2022): so no step is much harder than another.
        """
        total = len(self.alphas_cumprod)
        if not 1 <= steps <= total:
            raise InputError(f"{steps} steps: choose from 1 to {total}")
        grid: NDArray[Any]
        if solver == "dpmsolver++":
            ratios = _log_ratio(self.alphas_cumprod)
            wanted = np.linspace(ratios[0], ratios[-1], steps + 1)[1:]
            grid, own = np.searchsorted(-ratios, -wanted), np.arange(steps)
            rising = np.maximum.accumulate(grid - own) + own
            return np.minimum(rising, total - steps + own).astype(np.int64)
        if self.spacing == "linspace":
            grid = np.linspace(0, total - 1, steps).round()
        elif self.spacing == "leading":
            grid = np.arange(steps) * float(total // steps) + self.steps_offset
        else:
            grid = np.round(np.arange(total, 0, -total / steps))[::-1] - 1
        if grid[-1] >= total:
            raise InputError(
                f"{steps} steps with an offset of {self.steps_offset} pass the last timestep, "
                f"{total - 1}; choose fewer steps"
            )
        return grid.astype(np.int64)

    def tables(
        self, steps: int, convention: Convention = "paper", solver: Solver = "ddim"
    ) -> Schedule:
        """The tables of ``steps`` steps each way; the solver is that of generation.

        Levels form one chain, clean = level 0 to noise = level ``steps``: inversion climbs the
        very levels that generation descends, so their trajectories can be compared, and
        replayed, level by level.
        """
        if convention not in ("paper", "diffusers"):
            raise InputError(f"inversion convention {convention!r}: paper or diffusers")
        if solver not in ("ddim", "dpmsolver++"):
            raise InputError(f"solver {solver!r}: ddim or dpmsolver++")
        grid = self.timesteps(steps, solver)
        levels = [self.final_alpha, *self.alphas_cumprod[grid].tolist()]
        down = [_step(t, β, α) for t, (α, β) in zip(grid.tolist(), pairwise(levels), strict=True)]
        if convention == "paper":
            at = self._previous(grid).tolist()
            up = [_step(t, α, β) for t, (α, β) in zip(at, pairwise(levels), strict=True)]
        else:
            up = [
                _early(self.prediction_type, _step(t, α, β), α, β)
                for t, (α, β) in zip(grid.tolist(), pairwise(levels), strict=True)
            ]
        down = down[::-1]
        if solver == "dpmsolver++":
            fall = levels[::-1]
            middle = zip(down[1:-1], fall, fall[1:], fall[2:], strict=False)
            down[1:-1] = [_second(step.timestep, *around) for step, *around in middle]
        return Schedule(tuple(up), tuple(down))

    def _previous(self, grid: NDArray[np.int64]) -> NDArray[np.int64]:
        """The timestep of each level's neighbour on the clean side, at least 0."""
        first = max(0, int(grid[0]) - len(self.alphas_cumprod) // len(grid))
        return np.concatenate([[first], grid[:-1]])


def _step(timestep: int, alpha: float, alpha_next: float) -> StepRow:
    a = (alpha_next / alpha) ** 0.5
    b = (1 - alpha_next) ** 0.5 - a * (1 - alpha) ** 0.5
    return StepRow(timestep, float(a), float(b), 0.0, float(alpha))


def _second(timestep: int, alpha_before: float, alpha: float, alpha_next: float) -> StepRow:
    """DPM-Solver++ 2M: z_0 goes on as it went from the step before to this one.

    In λ = log √(α/(1-α)) by half a step: weight 1 + w of this step's z_0 and -w of the last one's.
    """
    before, here, there = (_log_ratio(a) for a in (alpha_before, alpha, alpha_next))
    w = 0.5 * (there - here) / (here - before)
    signal, noise = alpha**0.5, (1 - alpha) ** 0.5
    kept = (1 - alpha_next) ** 0.5 / noise
    clean = alpha_next**0.5 - kept * signal
    new = (1 + w) * clean / signal
    return StepRow(timestep, float(kept + new), float(-new * noise), float(-w * clean), alpha)


def _log_ratio(alpha: Any) -> Any:
    """λ."""
    return 0.5 * np.log(alpha / (1 - alpha))


def _early(kind: str, step: StepRow, alpha: float, alpha_seen: float) -> StepRow:
    """A step whose latent, of level ``alpha``, is shown to the model as one of ``alpha_seen``.

    That is what diffusers' inversion does. From v- and x0-prediction it then derives ε for the
    latent's own level, while a row step (see `to_epsilon`) derives it for the level the model
    was told; the difference is linear in z and ε, so it goes into a and b.
    """
    ratio = (alpha / alpha_seen) ** 0.5
    if kind == "v_prediction":
        of_z, of_epsilon = (1 - alpha) ** 0.5 - ratio * (1 - alpha_seen) ** 0.5, ratio
    elif kind == "sample" and alpha < 1:
        spread = (1 - alpha) ** 0.5
        of_z, of_epsilon = (1 - ratio) / spread, ratio * (1 - alpha_seen) ** 0.5 / spread
    else:
        return step
    return step._replace(a=step.a + step.b * of_z, b=step.b * of_epsilon)


def to_epsilon(kind: str, prediction: Any, latent: Any, alpha: Any) -> Any:
    """ε from what the model predicts: ε itself, v = √α ε - √(1-α) z_0, or z_0 (``sample``).

    Works on any arrays that know arithmetic; ``alpha`` broadcasts against them.
    """
    if kind == "epsilon":
        return prediction
    if kind == "v_prediction":
        return alpha**0.5 * prediction + (1 - alpha) ** 0.5 * latent
    if kind == "sample":
        return (latent - alpha**0.5 * prediction) / (1 - alpha) ** 0.5
    raise InputError(f"prediction type {kind!r}: one of {', '.join(_PREDICTIONS)}")
