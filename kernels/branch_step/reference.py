"""Eqs. 3 and 9 in plain PyTorch, and the noise under the mask."""

from __future__ import annotations

from math import pi

import torch
from torch import Tensor

__all__ = ["dual_step", "normal", "row_step", "start_step"]


def row_step(
    z: Tensor, epsilon: Tensor, a: Tensor, b: Tensor, region: Tensor, anchor: Tensor
) -> Tensor:
    """z' = region · (a z + b ε) + anchor."""
    return region * (_scalar(a) * z + _scalar(b) * epsilon.to(z)) + anchor


def dual_step(
    background: Tensor,
    defect: Tensor,
    epsilon_background: Tensor,
    epsilon_defect: Tensor,
    a: Tensor,
    b: Tensor,
    mask: Tensor,
) -> tuple[Tensor, Tensor]:
    """Eq. 9: (z^m', z*')."""
    anchor = row_step(background, epsilon_background, a, b, 1 - mask, torch.zeros_like(background))
    return anchor, row_step(defect, epsilon_defect, a, b, mask, anchor)


def start_step(
    background: Tensor,
    epsilon_background: Tensor,
    a: Tensor,
    b: Tensor,
    mask: Tensor,
    seed: Tensor,
    item: Tensor,
    sample: Tensor,
) -> tuple[Tensor, Tensor]:
    """The last inversion step and the start of generation: (z^m_T, z*_T = z^m_T + m n)."""
    anchor = row_step(background, epsilon_background, a, b, 1 - mask, torch.zeros_like(background))
    noise = normal(seed, item, sample, tuple(background.shape[1:]))
    return anchor, mask * noise.to(background) + anchor


def _scalar(x: Tensor) -> Tensor:
    return x.view(-1, 1, 1, 1)


def normal(seed: Tensor, item: Tensor, sample: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Seed, item, sample [B] int64 -> [B,*shape] float32, see `defectrt.diffusion.noise.normal`.

    The integers are read as 64 bits (the sample as 32), whatever their sign.
    """
    size = torch.Size(shape).numel()
    block = torch.arange(-(-size // 4), device=seed.device)
    rows = [x[:, None].expand(-1, len(block)) for x in (seed, item, sample)]
    key, item, sample = rows
    x = _philox(
        (block.expand_as(key), sample & _LOW, item & _LOW, item >> 32 & _LOW),
        (key & _LOW, key >> 32 & _LOW),
    )
    u = [(word.double() + 0.5) / 2.0**32 for word in x]
    radius = [(-2 * u[i].log()).sqrt() for i in (0, 2)]
    angle = [2 * pi * u[i] for i in (1, 3)]
    four = [f(angle[i]) * radius[i] for i in (0, 1) for f in (torch.cos, torch.sin)]
    return torch.stack(four, -1).flatten(1)[:, :size].unflatten(1, shape).float()


_LOW = 0xFFFFFFFF


def _philox(counter: tuple[Tensor, ...], key: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Philox4x32-10 on 32-bit words kept in int64."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        even, odd = c0 * 0xD2511F53, c2 * 0xCD9E8D57  # wraps at 64 bits, as it should
        c0, c2 = odd >> 32 & _LOW ^ c1 ^ k0, even >> 32 & _LOW ^ c3 ^ k1
        c1, c3 = odd & _LOW, even & _LOW
        k0, k1 = k0 + 0x9E3779B9 & _LOW, k1 + 0xBB67AE85 & _LOW
    return c0, c1, c2, c3
