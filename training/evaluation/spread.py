"""How far two distributions of one measure lie apart."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["spread_distance"]


def spread_distance(real: NDArray[np.float64], made: NDArray[np.float64]) -> NDArray[np.float64]:
    """Wasserstein-1 distance of each column, in units of the real values' standard deviation.

    real [N,F], made [M,F]. 0 is the same distribution; 1 is as far as values usually are apart.
    """
    quantiles = (np.arange(200) + 0.5) / 200
    between = np.abs(np.quantile(real, quantiles, 0) - np.quantile(made, quantiles, 0)).mean(0)
    return np.asarray(between / np.maximum(real.std(0), 1e-6))
