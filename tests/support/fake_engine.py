"""An engine without a network, and a manifest for it."""

from __future__ import annotations

import json

import numpy as np

from defectrt.diffusion.schedule import NoiseSchedule
from defectrt.engines.manifest import Manifest

WINDOW, LATENT = 32, 16


def manifest_dict(files=None):
    """A valid manifest as plain JSON."""
    schedule = NoiseSchedule.from_config({})
    tables = {
        str(n): {
            "inversion": [list(row) for row in schedule.tables(n).inversion],
            "generation": [list(row) for row in schedule.tables(n).generation],
        }
        for n in (4, 2)
    }
    return {
        "format": "defectrt-engine",
        "format_version": 1,
        "backend": "onnx",
        "precision": "float32",
        "image": {"channels": 3, "height": WINDOW, "width": WINDOW},
        "latent": {"channels": 3, "height": LATENT, "width": LATENT},
        "attention": {"height": 8, "width": 8},
        "vae": {"scaling_factor": 1.0, "shift_factor": 0.0},
        "prompts": [
            {"role": "background", "name": "background", "text": "good surface"},
            {"role": "masked", "name": "masked", "text": ""},
            {"role": "defect", "name": "spot", "text": "spot"},
        ],
        "schedule": {
            "solver": "ddim",
            "convention": "paper",
            "prediction_type": "epsilon",
            "train_timesteps": 1000,
            "default_steps": 4,
            "tables": tables,
        },
        "provenance": {"base_model": "", "run": {}, "dataset": [], "tools": {}},
        "files": files or {"denoiser.onnx": {"sha256": "0" * 64, "size": 0}},
    }


class FakeEngine:
    """An engine that paints a dark instance under the mask, in plain arithmetic.

    Its latent is the image, halved; its ε pulls what is under the mask to -0.8 (or, with
    ``blind``, leaves the background as it is, so that no defect appears).
    """

    calls, provider = 1, "cpu"

    def __init__(self, blind=False, defect_types=("spot",)):
        described = manifest_dict()
        described["prompts"][2:] = [
            {"role": "defect", "name": name, "text": name} for name in defect_types
        ]
        self.manifest = Manifest.model_validate_json(json.dumps(described))
        self.blind, self.batches = blind, []

    def encode(self, pixels):
        b, c, h, w = pixels.shape
        return pixels.reshape(b, c, h // 2, 2, w // 2, 2).mean(axis=(3, 5)).astype(np.float32)

    def decode(self, latent):
        return latent.repeat(2, axis=2).repeat(2, axis=3)

    def step(self, rows):
        self.batches.append(len(rows.latent))
        alpha = NoiseSchedule.from_config({}).alphas_cumprod[rows.timestep].reshape(-1, 1, 1, 1)
        clean = self._clean(rows)
        epsilon = (rows.latent - alpha**0.5 * clean) / (1 - alpha) ** 0.5
        a, b = (x.reshape(-1, 1, 1, 1) for x in (rows.a, rows.b))
        z = rows.region * (a * rows.latent + b * epsilon) + rows.anchor
        attention = rows.mask.reshape(len(z), 1, 8, 2, 8, 2).max(axis=(3, 5))
        return z.astype(np.float32), attention.astype(np.float32)

    def _clean(self, rows):
        if self.blind:
            inside = (rows.mask * 0 + self.level).astype(np.float32)
        else:
            inside = np.full_like(rows.mask, -0.8)
        return np.where(rows.mask > 0, inside, rows.latent)

    level = 0.0

    def stop(self):
        pass

    def close(self):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass
