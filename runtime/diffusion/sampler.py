"""Inversion and generation, Eqs. 8 and 9, as row steps.

Symbols follow the paper: z latent, m mask (1 = defect), tilde = inverted, star = with a defect.
Both are generators: they yield `Rows`, are sent (z', attention), and know nothing of who
computes it, so that a scheduler can put rows of many of them into one batch; `run` runs one alone.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeAlias, TypeVar, cast

import numpy as np

from ..config.synthesis import Background
from ..errors import InputError
from .rows import Floats, Ints, Prompts, Rows, Step
from .schedule import Schedule, StepRow

__all__ = ["Generated", "Steps", "denoise", "generate", "invert", "repeat", "run"]

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
    z = (1 - mask) * z0
    path = [z]
    for row in schedule.inversion:
        z = yield from _background(z, row, mask, prompts)
        path.append(z)
    return path


def generate(
    path: list[Floats],
    mask: Floats,
    noise: Floats,
    prompts: Prompts,
    schedule: Schedule,
    background: Background = "replay",
) -> Steps[Generated]:
    """Generate a defect under the mask of an inverted background, Eq. 9.

    path as `invert` returns it; noise [B,C,h,w] standard normal. Starts from
    z*_T = z̃^m_T + m ε. `replay` leaves the background latent exactly the inverted one;
    `dual` is the paper's, and costs a second evaluation a step.
    """
    if background not in ("replay", "dual"):
        raise InputError(f"background {background!r}: replay or dual")
    if len(path) != len(schedule) + 1:
        raise InputError(f"{len(path)} latents do not fit a schedule of {len(schedule)} steps")
    z_m = path[-1]
    z = z_m + mask * noise
    attention: Floats | float = 0.0
    for row, stored in zip(schedule.generation, path[-2::-1], strict=True):
        z_m = (
            stored if background == "replay" else (yield from _background(z_m, row, mask, prompts))
        )
        z, seen = yield _rows(z, row, mask, prompts.defect, prompts.background, mask, z_m)
        attention = attention + seen
    return Generated(z, z_m, np.asarray(attention / np.float32(len(schedule)), np.float32))


def denoise(
    path: list[Floats], mask: Floats, prompts: Prompts, schedule: Schedule
) -> Steps[Floats]:
    """Denoise an inverted background again, the background branch of Eq. 9 alone: z^m_0 [B,C,h,w].

    path as `invert` returns it. How far the result is from ``path[0]`` is the drift of ``dual``.
    """
    z_m = path[-1]
    for row in schedule.generation:
        z_m = yield from _background(z_m, row, mask, prompts)
    return z_m


def _background(z_m: Floats, row: StepRow, mask: Floats, prompts: Prompts) -> Steps[Floats]:
    """One step of z^m, which is 0 under the mask."""
    z, _ = yield _rows(
        z_m, row, mask, prompts.masked, prompts.background, 1 - mask, np.zeros_like(z_m)
    )
    return z


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


def _rows(
    z: Floats,
    row: StepRow,
    mask: Floats,
    inside: Ints,
    outside: Ints,
    region: Floats,
    anchor: Floats,
) -> Rows:
    n = len(z)
    return Rows(
        latent=z,
        timestep=np.full(n, row.timestep, np.int64),
        mask=mask,
        inside=inside,
        outside=outside,
        a=np.full(n, row.a, np.float32),
        b=np.full(n, row.b, np.float32),
        region=region,
        anchor=anchor,
    )
