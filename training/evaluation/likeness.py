"""How alike two sets of pictures are, by what a network sees in them: FID and KID."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

__all__ = ["Kid", "fid", "kid", "kid_of_halves"]

Floats = NDArray[np.float64]

#: Halves that real pictures are cut into, to see what chance looks like.
_HALVES = 200
_OUTSIDE = 0.05


@dataclass(frozen=True)
class Kid:
    """A kernel distance and the interval that holds 95 % of it; 0: the same distribution."""

    value: float
    low: float
    high: float


class _Seen(nn.Module):
    """Stands for the network where its features are there already."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    def forward(self, features: Tensor) -> Tensor:
        return features


def fid(real: Tensor, made: Tensor) -> float:
    """Fréchet distance of two sets of features [N,D], [M,D] (Heusel et al. 2017), by torchmetrics.

    It takes both for Gaussians. Of fewer pictures than features it is far too large, and the
    fewer the larger: compare only sets of equal numbers. Both need two pictures at least.
    """
    metric = FrechetInceptionDistance(_Seen(real.shape[1])).set_dtype(real.double().dtype)
    metric.update(real.double(), real=True)
    metric.update(made.double(), real=False)
    return float(metric.compute())


def kid(real: Tensor, made: Tensor, real_weights: Floats, made_weights: Floats) -> Kid:
    """Kernel distance of features [N,D], [M,D] (Bińkowski et al. 2018): unbiased, whatever N.

    The squared maximum mean discrepancy with the kernel (x·y/D + 1)³. The weights [B,N], [B,M] are
    the pictures drawn again, see `defectrt.training.proving.intervals.resampled`; a picture is
    never compared with itself.
    """
    kernels = _kernels(real, made)
    one = np.ones((1, len(real))), np.ones((1, len(made)))
    value = float(_discrepancy(*kernels, *one)[0])
    drawn = _discrepancy(*kernels, real_weights, made_weights)
    drawn = drawn - np.nanmean(drawn) + value
    low, high = np.nanquantile(drawn, (_OUTSIDE / 2, 1 - _OUTSIDE / 2))
    return Kid(value, float(low), float(high))


def kid_of_halves(real: Tensor, pieces: NDArray[np.int64], seed: int = 0) -> float | None:
    """95th percentile of the distance of one half of real pictures to the other: chance.

    ``pieces`` [N] are their workpieces, which stay whole. None where a half has less than two.
    """
    rng, found = np.random.default_rng(seed), []
    names = np.unique(pieces)
    kernel = _kernels(real, real)[0]
    for _ in range(_HALVES):
        first = np.isin(pieces, rng.permutation(names)[: len(names) // 2])
        if min(first.sum(), (~first).sum()) < 2:
            continue
        a, b = (side[None].astype(float) for side in (first, ~first))
        found.append(float(_discrepancy(kernel, kernel, kernel, a, b)[0]))
    return float(np.quantile(found, 1 - _OUTSIDE)) if found else None


def _kernels(real: Tensor, made: Tensor) -> tuple[Floats, Floats, Floats]:
    """Of real with real, made with made, real with made."""
    x, y = (side.double().numpy() for side in (real, made))
    own, theirs, between = ((a @ b.T / x.shape[1] + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
    return own, theirs, between


def _discrepancy(own: Floats, theirs: Floats, between: Floats, w: Floats, v: Floats) -> Floats:
    """[B]: the mean of each set's kernel over pairs of different pictures, less twice the other."""
    cross = ((w @ between) * v).sum(axis=1) / (w.sum(axis=1) * v.sum(axis=1))
    return _within(own, w) + _within(theirs, v) - 2 * cross


def _within(kernel: Floats, w: Floats) -> Floats:
    off = kernel - np.diag(np.diag(kernel))
    with np.errstate(invalid="ignore"):
        return ((w @ off) * w).sum(axis=1) / (w.sum(axis=1) ** 2 - (w**2).sum(axis=1))
