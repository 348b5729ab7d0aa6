"""PRO beside anomalib's own, which ./check-needs brings; see test_readers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from defectrt.training.data.samples import Sample
from defectrt.training.proving import figures as f
from defectrt.training.thresholds.card import _levelled

READERS = Path(__file__).parents[3] / ".cache" / "readers"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not READERS.is_dir(), reason="./check-needs brings the readers"),
]

ANOMALIB = """
import sys
import numpy as np, torch
sys.path.append(sys.argv[1])
library = torch.library.Library("torchvision", "DEF")
for name in ("nms", "qnms"):
    library.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
from anomalib.metrics.aupro import _AUPRO
given = np.load(sys.argv[2])
metric = _AUPRO(fpr_limit=0.3)
metric.update(torch.tensor(given["maps"]).float(), torch.tensor(given["masks"]).int())
print("AUPRO", float(metric.compute()))
"""


def test_pro_is_that_of_anomalib(tmp_path):
    rng = np.random.default_rng(0)
    masks = np.zeros((12, 64, 64), bool)
    for mask in masks[:7]:
        for _ in range(rng.integers(1, 4)):
            y, x = rng.integers(4, 50, 2)
            mask[y : y + rng.integers(2, 10), x : x + rng.integers(2, 10)] = True
    maps = rng.normal(size=masks.shape) + 1.2 * masks
    maps = (maps - maps.min()) / np.ptp(maps)
    np.savez(tmp_path / "given.npz", maps=maps, masks=masks)
    command = [sys.executable, "-c", ANOMALIB, READERS, tmp_path / "given.npz"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    theirs = float(done.stdout.split("AUPRO ")[1])
    image = np.full((64, 64, 3), 100, np.uint8)
    samples = [
        Sample(Path(f"{i}.png"), "hole" if mask.any() else "good", image, mask)
        for i, mask in enumerate(masks)
    ]
    tally = f.tally_of(samples, _levelled(list(maps), samples))
    ours = f.figures(f.test_set(samples, range(12)), tally, np.ones((1, 12)))["pro"][0]
    assert ours == pytest.approx(theirs, abs=0.002)
    assert 0.3 < theirs < 0.9
