"""Python and C++ on the same engine, alternating: seconds a sample, session start, memory.

python benchmarks/cpp.py [--engine DIR] [--pairs 5] >> benchmarks/results/cpp.csv

One image a time, one tile, one thread in the engine on both sides, a process of its own for
each start and its memory. Correctness is the parity test's; here images are compared once.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from sides import LOOSE, ROOT, resident, scene

FIELDS = ["side", "samples", "p50_s", "max_s", "start_s", "start_mb", "mb", "steps", "threads"]


class Python:
    def __init__(self, engine, defect_type, steps):
        from defectrt.config.synthesis import SynthesisConfig
        from defectrt.engines.loading import load_engine
        from defectrt.synthesis.pipeline import Pipeline, SourceImage
        from defectrt.synthesis.scheduler import Scheduler, Task

        self.engine = load_engine(engine, threads=1)
        config = SynthesisConfig(defect=defect_type, steps=steps, **LOOSE)
        self.pipeline = Pipeline(self.engine, config)
        self.classes = SourceImage, Scheduler, Task

    def __call__(self, image, mask, seed):
        source, scheduler, task = self.classes
        work = task(self.pipeline.sample(source("x", image), 0, [mask], seed))
        (done,) = scheduler(self.engine, batch_size=1).run([work])
        return done.result().image


class Cpp:
    def __init__(self, engine, defect_type, steps):
        from support import clibrary

        self.library = clibrary.Library(clibrary.build())
        handle = self.library.open(engine, threads=1)
        self.session = self.library.session(
            handle,
            defect=defect_type.encode(),
            steps=steps,
            **LOOSE,
        )

    def __call__(self, image, mask, seed):
        return self.library.synthesize(self.session, image, [mask], seed)[0]


SIDES = {"python": Python, "cpp": Cpp}


def serve(side, engine, defect_type, steps):
    """Makes a sample for every seed on stdin; says how long it took."""
    image, mask = scene()
    before, start = resident(), time.perf_counter()
    make = SIDES[side](engine, defect_type, steps)
    print(json.dumps([time.perf_counter() - start, resident() - before]), flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        made = make(image, mask, int(line))
        seconds = time.perf_counter() - start
        checksum = int(made.astype(np.int64).sum())
        print(json.dumps([seconds, resident() - before, checksum]), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", default=str(ROOT / "runtime" / "engines" / "bundled"))
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--serve", choices=SIDES)
    given = parser.parse_args()
    from defectrt.engines.manifest import read_manifest

    manifest = read_manifest(Path(given.engine))
    steps = given.steps or manifest.schedule.default_steps
    if given.serve:
        serve(given.serve, given.engine, manifest.defect_types[0], steps)
        return
    command = [sys.executable, __file__, "--engine", given.engine, "--steps", str(steps)]
    children = {
        side: subprocess.Popen(
            [*command, "--serve", side], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for side in SIDES
    }
    starts = {side: json.loads(child.stdout.readline()) for side, child in children.items()}
    seen = {side: [] for side in SIDES}
    for seed in range(given.pairs + 1):  # the first pair warms up
        for side, child in children.items():
            child.stdin.write(f"{seed}\n")
            child.stdin.flush()
            seen[side].append(json.loads(child.stdout.readline()))
    for child in children.values():
        child.stdin.close()
        child.wait()
    table = csv.writer(sys.stdout)
    table.writerow(FIELDS)
    for side, rows in seen.items():
        times = [row[0] for row in rows[1:]]
        numbers = [statistics.median(times), max(times), *starts[side], rows[-1][1]]
        table.writerow([side, len(times), *(f"{n:.3f}" for n in numbers), steps, 1])
    differences = [abs(a[2] - b[2]) for a, b in zip(*seen.values(), strict=True)]
    print(f"largest difference of an image's sum: {max(differences)}", file=sys.stderr)


if __name__ == "__main__":
    main()
