"""Memory of a long run: many small images, or a few large ones, through `defectrt synthesize`.

    python benchmarks/memory.py [--images 10000] [--size 128x128] [--engine DIR] [--steps 10]

Draws the images, runs the command, and looks every few seconds at how much memory the process
holds (of Linux, /proc). One line of JSON a look; the last one is the account: mean memory of each
tenth of the run, its peak, seconds, exit code.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image


def draw(folder: Path, count: int, width: int, height: int) -> None:
    """Grain, turned and shifted a little for each image, as PNG."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    grain = rng.normal(150, 8, (height, width, 3)).clip(0, 255).astype(np.uint8)
    for i in range(count):
        Image.fromarray(np.roll(grain, i, (0, 1))).save(folder / f"{i:05}.png", compress_level=1)


def resident(pid: int) -> float:
    """MiB that a process holds now; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")), 0.0)


def main() -> None:
    """Draw, run and watch."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--size", default="128x128", help="WIDTHxHEIGHT")
    parser.add_argument("--engine", help="instead of the bundled one")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--every", type=float, default=5, help="seconds between two looks")
    parser.add_argument("--work", type=Path, default=Path(".cache/memory"))
    options = parser.parse_args()
    shutil.rmtree(options.work, ignore_errors=True)
    images, out = options.work / "images", options.work / "out"
    draw(images, options.images, *map(int, options.size.split("x")))
    words = f"synthesize --images {images} --out {out} --steps {options.steps} --threads 1"
    words += f" --engine {options.engine}" if options.engine else ""
    began, held = time.monotonic(), list[float]()
    process = subprocess.Popen(
        [sys.executable, "-m", "defectrt", *words.split()], stdout=subprocess.DEVNULL
    )
    while process.poll() is None:
        if mib := resident(process.pid):
            held.append(mib)
            print(json.dumps({"s": round(time.monotonic() - began), "mib": round(mib)}), flush=True)
        time.sleep(options.every)
    tenths = [round(float(part.mean())) for part in np.array_split(held, 10) if part.size]
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    account = {"images": options.images, "size": options.size, "mib_by_tenth": tenths}
    account |= {"peak_mib": round(peak), "seconds": round(time.monotonic() - began)}
    print(json.dumps(account | {"exit_code": process.returncode}))
    sys.exit(process.returncode)


if __name__ == "__main__":
    main()
