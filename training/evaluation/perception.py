"""Distances as a network perceives them: LPIPS and its like, diversity, the nearest picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Perceived", "diversity", "diversity_within", "perceived"]

Floats = NDArray[np.float64]

_EPS = 1e-10


class Perceived:
    """Pictures as points, whose squared distance is LPIPS (Zhang et al. 2018).

    Each place's channels are brought to length 1, weighted, and averaged over the places of a map;
    the maps add up. Without weights all channels count alike, which is another figure.
    """

    def __init__(self, maps: Sequence[Tensor], weights: Sequence[Tensor] | None = None) -> None:
        """``maps`` [N,C,h,w] of each level; ``weights`` [C] of its channels."""
        self._levels = []
        for level, values in enumerate(maps):
            length = values.pow(2).sum(dim=1, keepdim=True).sqrt()
            scaled = values / (length + _EPS)
            if weights is not None:
                scaled = scaled * weights[level].clamp(min=0).sqrt().view(1, -1, 1, 1)
            self._levels.append(scaled)

    def __len__(self) -> int:
        """How many pictures."""
        return len(self._levels[0])

    def distances(self, other: Perceived) -> Floats:
        """[N,M] to the pictures of another."""
        total = np.zeros((len(self), len(other)))
        for a, b in zip(self._levels, other._levels, strict=True):
            places = a.shape[2] * a.shape[3]
            squared = torch.cdist(a.flatten(1), b.flatten(1)).double().pow(2) / places
            total += squared.numpy()
        return total

    def distances_in(self, other: Perceived, masks: Tensor) -> Floats:
        """[N,M]: the same where the masks [M,H,W] in {0,1} of the other's pictures are set.

        What lies around a defect does not count, as far as a level's places tell it apart.
        """
        total = np.zeros((len(self), len(other)))
        for a, b in zip(self._levels, other._levels, strict=True):
            share = F.adaptive_avg_pool2d(masks[:, None].float(), a.shape[2:])
            share = share / share.sum(dim=(2, 3), keepdim=True).clamp(min=_EPS)
            for i, (picture, where) in enumerate(zip(b, share, strict=True)):
                inside = where[0] > 0
                apart = (a[:, :, inside] - picture[:, inside]).pow(2).sum(dim=1)
                total[:, i] += (apart * where[0][inside]).sum(dim=1).double().numpy()
        return total


def perceived(maps: Sequence[Tensor], weights: Sequence[Tensor] | None) -> Perceived:
    """`Perceived`, without gradients."""
    with torch.inference_mode():
        return Perceived(maps, weights)


def diversity(distances: Floats, weights: Floats | None = None) -> Floats:
    """[B]: mean distance [N,N] of two different pictures; weights [B,N], by default all once."""
    weights = np.ones((1, len(distances))) if weights is None else weights
    with np.errstate(invalid="ignore"):
        pairs = weights.sum(axis=1) ** 2 - (weights**2).sum(axis=1)
        return ((weights @ _off(distances)) * weights).sum(axis=1) / pairs


def diversity_within(
    distances: Floats, nearest: NDArray[np.int64], weights: Floats | None = None
) -> Floats:
    """[B]: mean over the training pictures of the diversity of what is nearest to each: IC-LPIPS.

    distances [N,N]; nearest [N], the training picture that each is nearest to (Ojha et al. 2021).
    Clusters of fewer than two do not count; NaN if there are only such. A set that repeats its
    training pictures scores near 0, however different those are.
    """
    weights = np.ones((1, len(distances))) if weights is None else weights
    clusters = [
        diversity(distances[np.ix_(own, own)], weights[:, own])
        for own in (np.flatnonzero(nearest == i) for i in np.unique(nearest))
        if len(own) > 1
    ]
    if not clusters:
        return np.full(len(weights), np.nan)
    with np.errstate(invalid="ignore"):
        found = np.stack(clusters)
        known = np.isfinite(found)
        return np.where(known, found, 0).sum(axis=0) / known.sum(axis=0)


def _off(distances: Floats) -> Floats:
    return distances - np.diag(np.diag(distances))
