"""What a sample costs beside the networks: a whole job with an engine that computes nothing.

python benchmarks/host.py [--side 256] [--images 24] [--steps 8] [--background noised] [--csv FILE]
                          [--profile]

Prints the CPU time of the process a sample and, by stage, the busy seconds a sample. The engine
copies its rows; its pictures are reduced and enlarged by repetition, so its own share is small and
counted too. ``--profile`` prints where the main thread was instead.
"""

from __future__ import annotations

import argparse
import cProfile
import csv
import pstats
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, process_time
from types import SimpleNamespace

import numpy as np
from PIL import Image

from defectrt.engines.loading import BUNDLED_ENGINE
from defectrt.engines.manifest import Manifest, read_manifest
from defectrt.synthesis import job
from defectrt.synthesis.scheduler import Scheduler

FIELDS = ("side", "steps", "background", "ms of CPU", "samples/s", "stage", "ms a sample")


class Nothing:
    """An engine without networks: a defect's row sinks to -0.8, every other stays as it is."""

    provider, calls = "none", 1

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self._scale = manifest.image.height // manifest.latent.height
        self._defects = {i for i, p in enumerate(manifest.prompts) if p.role == "defect"}
        side = manifest.attention
        self._attention = np.zeros((64, 1, side.height, side.width), np.float32)

    def encode(self, pixels):
        small = pixels[:, :1, :: self._scale, :: self._scale]
        return np.repeat(small, self.manifest.latent.channels, axis=1)

    def decode(self, latent):
        small = np.repeat(latent[:, :1], 3, axis=1)
        return small.repeat(self._scale, axis=2).repeat(self._scale, axis=3)

    def step(self, rows):
        makes = np.isin(rows.inside, list(self._defects)).reshape(-1, 1, 1, 1)
        moved = np.where(makes, np.float32(-0.8), rows.latent)
        return rows.region * moved + rows.anchor, self._attention[: len(moved)]

    def stop(self):
        pass

    close = stop

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


@contextmanager
def without_networks():
    """Jobs run on `Nothing`; yields where their schedulers' account will lie."""
    opened, made, account = job.open_engine, job.Scheduler, SimpleNamespace(stats=None)

    def scheduler(*args, **options):
        own = Scheduler(*args, **options)
        account.stats = own.stats
        return own

    job.open_engine = lambda *_: Nothing(read_manifest(BUNDLED_ENGINE))
    job.Scheduler = scheduler
    try:
        yield account
    finally:
        job.open_engine, job.Scheduler = opened, made


def measure(side: int, images: int, **options) -> tuple[float, float, dict[str, float]]:
    """One job: CPU ms and wall seconds a sample, and busy ms a sample of each stage."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder, without_networks() as account:
        goods = Path(folder, "good")
        goods.mkdir()
        for i in range(images):
            grain = rng.normal(150, 10, (side, side, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(grain).save(goods / f"{i:03}.png")
        cpu, wall = process_time(), perf_counter()
        summary = job.synthesize(goods, Path(folder, "out"), quiet=True, **options)
        cpu, wall = process_time() - cpu, perf_counter() - wall
        if summary.kept != images:
            raise SystemExit(f"{summary.kept} of {images} samples were kept: {summary.dropped[:3]}")
        stages = {k: 1e3 * v / images for k, v in account.stats.seconds.items()}
    return 1e3 * cpu / images, wall / images, stages


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=256, help="of the pictures, px")
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--background", default="noised")
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--profile", action="store_true")
    given = parser.parse_args()
    options = {"steps": given.steps, "background": given.background}
    measure(given.side, 2, **options)  # imports and the like are no sample's
    if given.profile:
        profile = cProfile.Profile()
        profile.runcall(measure, given.side, given.images, **options)
        pstats.Stats(profile).sort_stats("tottime").print_stats(30)
        return
    cpu, wall, stages = measure(given.side, given.images, **options)
    kept = [given.side, given.steps, given.background, round(cpu, 1), round(1 / wall, 1)]
    rows = [[*kept, stage, round(ms, 2)] for stage, ms in sorted(stages.items())]
    out = csv.writer(given.csv.open("a", newline="") if given.csv else sys.stdout)
    out.writerow(FIELDS)
    out.writerows(rows)


if __name__ == "__main__":
    main()
