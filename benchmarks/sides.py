"""What benchmarks of Python beside C++ have in common: a picture, how strict, and memory."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

#: Whatever the model paints is a defect.
LOOSE = {"min_grain": 0.0, "min_coverage": 0.0, "max_leak": 1e6}


def resident():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 2**20


def scene():
    rng = np.random.default_rng(0)
    image = rng.normal(150, 10, (256, 256, 3)).clip(0, 255).astype(np.uint8)
    mask = np.zeros((256, 256), bool)
    mask[120:130, 110:140] = True
    return image, mask
