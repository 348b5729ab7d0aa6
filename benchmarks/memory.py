"""Memory of a long run: many small images, or a few large ones, through `defectrt synthesize`.

    python benchmarks/memory.py [--images 10000] [--size 128x128] [--engine DIR] [--steps 8]

Draws the images, runs the command, and looks every few seconds at how much memory the process
holds (of Linux, /proc). One line of JSON a look; the last one is the account: mean memory of each
tenth of the run, its peak, seconds, exit code.
"""

from __future__ import annotations

import argparse
import json
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


def held_by(pid: int) -> tuple[int, int]:
    """MiB that a process holds now, and the most since it began; zeros once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0, 0
    kib = {line.split()[0]: int(line.split()[1]) for line in lines if line.endswith("kB")}
    return kib.get("VmRSS:", 0) >> 10, kib.get("VmHWM:", 0) >> 10


def main() -> None:
    """Draw, run and watch."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--size", default="128x128", help="WIDTHxHEIGHT")
    parser.add_argument("--engine", help="instead of the bundled one")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--every", type=float, default=5, help="seconds between two looks")
    parser.add_argument("--work", type=Path, default=Path(".cache/memory"))
    options = parser.parse_args()
    shutil.rmtree(options.work, ignore_errors=True)
    images, out = options.work / "images", options.work / "out"
    draw(images, options.images, *map(int, options.size.split("x")))
    words = f"synthesize --images {images} --out {out} --steps {options.steps} --threads 1"
    words += f" --engine {options.engine}" if options.engine else ""
    began, held, peak = time.monotonic(), list[int](), 0
    process = subprocess.Popen(
        [sys.executable, "-m", "defectrt", *words.split()], stdout=subprocess.DEVNULL
    )
    while process.poll() is None:
        mib, most = held_by(process.pid)
        if mib:
            held.append(mib)
            peak = most
            print(json.dumps({"s": round(time.monotonic() - began), "mib": mib}), flush=True)
        time.sleep(options.every)
    tenths = [round(float(part.mean())) for part in np.array_split(held, 10) if part.size]
    account = {"images": options.images, "size": options.size, "mib_by_tenth": tenths}
    account |= {"peak_mib": peak, "seconds": round(time.monotonic() - began)}
    print(json.dumps(account | {"exit_code": process.returncode}))
    sys.exit(process.returncode)


if __name__ == "__main__":
    main()
