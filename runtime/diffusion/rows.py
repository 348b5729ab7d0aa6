"""The row step: one equation that serves inversion, background and defect rows alike.

With DDIM written as ``z' = a z + b ε`` (Eqs. 3 and 4), every row of the method is

    z' = region · (a z + b ε_θ(z, t, prompts)) + anchor

so one batch can hold rows of different images in different phases.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Floats", "Ints", "Prompts", "Rows", "Step"]

Floats: TypeAlias = NDArray[np.float32]
Ints: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True)
class Rows:
    """One batch of row steps, the denoiser's inputs by name.

    latent    [B,C,h,w] float32: z
    timestep  [B] int64: the timestep at which ε_θ is evaluated
    mask      [B,1,h,w] float32 in {0,1}: 1 = defect; chooses the prompt in cross-attention
    inside    [B] int64: prompt attended to where the mask is 1
    outside   [B] int64: prompt attended to where the mask is 0
    a, b      [B] float32: the DDIM step's two scalars
    region    [B,1,h,w] float32: where the step is applied
    anchor    [B,C,h,w] float32: what is added elsewhere
    """

    latent: Floats
    timestep: Ints
    mask: Floats
    inside: Ints
    outside: Ints
    a: Floats
    b: Floats
    region: Floats
    anchor: Floats


#: Rows in, (z' [B,C,h,w] float32, attention [B,1,r,r] float32 in [0,1]) out.
Step: TypeAlias = Callable[[Rows], tuple[Floats, Floats]]


@dataclass(frozen=True)
class Prompts:
    """Prompt indices of a batch, each [B] int64.

    C_1 = [defect, background], C_2 = [masked, background].
    """

    defect: Ints
    background: Ints
    masked: Ints
