"""Inversion and generation, Eqs. 8 and 9, as row steps; and a background without inversion, Eq. 1.

Symbols follow the paper: z latent, m mask (1 = defect), tilde = inverted, star = with a defect.
Both are generators: they yield `Rows`, are sent (z', attention), and know nothing of who
computes it, so that a scheduler can put rows of many of them into one batch; `run` runs one alone.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeAlias, TypeVar, cast, get_args

import numpy as np

from ..config.synthesis import Background
from ..errors import InputError
from .rows import Floats, Ints, Prompts, Rows, Step
from .schedule import Schedule, StepRow

__all__ = ["Generated", "Steps", "denoise", "generate", "invert", "noised", "repeat", "run"]

T = TypeVar("T")
#: Yields rows, is sent (z' [B,C,h,w], attention [B,1,r,r]) for each, returns a T.
Steps: TypeAlias = Generator[Rows, tuple[Floats, Floats], T]


@dataclass(frozen=True)
class Generated:
    """What generation ends with.

    latent      z*_0 [B,C,h,w]: the background with a defect under the mask
    background  z^m_0 [B,C,h,w]: the background alone, 0 under the mask
    attention   [B,1,r,r] in [0,1]: mean over the steps of the defect rows' attention
    """

    latent: Floats
    background: Floats
    attention: Floats


def invert(z0: Floats, mask: Floats, prompts: Prompts, schedule: Schedule) -> Steps[list[Floats]]:
    """DDIM inversion of the masked background, Eq. 8.

    z0 [B,C,h,w] float32; mask [B,1,h,w] in {0,1}. Returns z̃^m_0 … z̃^m_T, each [B,C,h,w].
    """
    background = _background((1 - mask) * z0, mask, prompts)
    path = [background.latent]
    for row in schedule.inversion:
        yield from background.step(row)
        path.append(background.latent)
    return path


def noised(z0: Floats, mask: Floats, noise: Floats, schedule: Schedule) -> list[Floats]:
    """The masked background at every level of noise, Eq. 1: what training showed the model.

    Costs no evaluation, where `invert` takes one a level. z0, noise [B,C,h,w] float32; mask
    [B,1,h,w] in {0,1}. Returns z^m_0 … z^m_T as `invert` does, all of them with the same noise.
    """
    outside = 1 - mask
    levels = [row.alpha for row in reversed(schedule.generation)]
    return [outside * z0] + [
        outside * (np.float32(α**0.5) * z0 + np.float32((1 - α) ** 0.5) * noise) for α in levels
    ]


def generate(
    path: list[Floats],
    mask: Floats,
    noise: Floats,
    prompts: Prompts,
    schedule: Schedule,
    background: Background = "noised",
) -> Steps[Generated]:
    """Generate a defect under the mask of an inverted background, Eq. 9.

    path as `invert` or `noised` returns it; noise [B,C,h,w] standard normal. Starts from
    z*_T = z̃^m_T + m ε. The background's latents are those of the path; `dual` is the paper's,
    which computes them again and so costs a second evaluation a step.
    """
    if background not in get_args(Background):
        raise InputError(f"background {background!r}: one of {', '.join(get_args(Background))}")
    if len(path) != len(schedule) + 1:
        raise InputError(f"{len(path)} latents do not fit a schedule of {len(schedule)} steps")
    alone = _background(path[-1], mask, prompts)
    start = path[-1] + mask * noise
    star = _Branch(start, mask, prompts.defect, prompts.background, region=mask)
    attention: Floats | float = 0.0
    for row, stored in zip(schedule.generation, path[-2::-1], strict=True):
        if background == "dual":
            yield from alone.step(row)
        else:
            alone.latent = stored
        attention = attention + (yield from star.step(row, alone.latent))
    return Generated(
        star.latent, alone.latent, np.asarray(attention / np.float32(len(schedule)), np.float32)
    )


def denoise(
    path: list[Floats], mask: Floats, prompts: Prompts, schedule: Schedule
) -> Steps[Floats]:
    """Denoise an inverted background again, the background branch of Eq. 9 alone: z^m_0 [B,C,h,w].

    path as `invert` returns it. How far the result is from ``path[0]`` is the drift of ``dual``.
    """
    background = _background(path[-1], mask, prompts)
    for row in schedule.generation:
        yield from background.step(row)
    return background.latent


class _Branch:
    """A latent [B,C,h,w] on its way, and what its next step needs of the last one."""

    def __init__(
        self, latent: Floats, mask: Floats, inside: Ints, outside: Ints, region: Floats
    ) -> None:
        self.latent = latent
        self._mask, self._inside, self._outside, self._region = mask, inside, outside, region
        self._last: tuple[Floats, StepRow, Floats] | None = None

    def step(self, row: StepRow, anchor: Floats | None = None) -> Steps[Floats]:
        """One step where the region is, and ``anchor`` elsewhere, by default 0: the attention."""
        z = self.latent
        anchor = np.zeros_like(z) if anchor is None else anchor
        if row.c and self._last:
            anchor = anchor + self._region * (np.float32(row.c) * _clean(*self._last))
        n = len(z)
        self.latent, seen = yield Rows(
            latent=z,
            timestep=np.full(n, row.timestep, np.int64),
            mask=self._mask,
            inside=self._inside,
            outside=self._outside,
            a=np.full(n, row.a, np.float32),
            b=np.full(n, row.b, np.float32),
            region=self._region,
            anchor=anchor,
        )
        self._last = z, row, self.latent - anchor
        return seen


def _background(z: Floats, mask: Floats, prompts: Prompts) -> _Branch:
    """z^m, which is 0 under the mask."""
    return _Branch(z, mask, prompts.masked, prompts.background, region=1 - mask)


def _clean(z: Floats, row: StepRow, moved: Floats) -> Floats:
    """z_0 as a step foresaw it, from z and ``moved`` = a z + b ε; all [B,C,h,w]."""
    epsilon = (moved - np.float32(row.a) * z) / np.float32(row.b)
    return np.asarray(
        (z - np.float32((1 - row.alpha) ** 0.5) * epsilon) / np.float32(row.alpha**0.5), np.float32
    )


def run(step: Step, steps: Steps[T]) -> T:
    """Run one of the above to its end, alone, on any step function; returns what it returns."""
    try:
        rows = next(steps)
        while True:
            rows = steps.send(step(rows))
    except StopIteration as end:
        return cast(T, end.value)


def repeat(path: list[Floats], times: int) -> list[Floats]:
    """A trajectory of B rows as one of B·times: several defects from one inversion."""
    return [np.repeat(z, times, axis=0) for z in path]
