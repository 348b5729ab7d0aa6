"""Rows as a scheduler would batch them."""

from __future__ import annotations

import numpy as np

from defectrt.diffusion.rows import Rows


def random_rows(manifest, n, seed=0):
    """Rows of inversion, background and defect, mixed, as a scheduler would batch them."""
    rng = np.random.default_rng(seed)
    c, h, w = manifest.latent.channels, manifest.latent.height, manifest.latent.width
    mask = (rng.random((n, 1, h, w)) < 0.3).astype(np.float32)
    table = manifest.steps()
    steps = [(table.inversion, table.generation)[i % 2][rng.integers(len(table))] for i in range(n)]
    defect = np.arange(n) % 3 == 2
    region = np.where(defect.reshape(-1, 1, 1, 1), mask, 1 - mask).astype(np.float32)
    anchor = rng.normal(size=(n, c, h, w)) * (1 - mask) * defect.reshape(-1, 1, 1, 1)
    return Rows(
        latent=rng.normal(size=(n, c, h, w)).astype(np.float32),
        timestep=np.array([s.timestep for s in steps]),
        mask=mask,
        inside=np.where(defect, 2, 1),
        outside=np.zeros(n, np.int64),
        a=np.array([s.a for s in steps], np.float32),
        b=np.array([s.b for s in steps], np.float32),
        region=region,
        anchor=anchor.astype(np.float32),
    )
