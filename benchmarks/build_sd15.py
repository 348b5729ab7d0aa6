"""Building an engine of Stable Diffusion 1.5's size without a GPU: time, peak memory, size.

    python benchmarks/build_sd15.py --precision float16 --capability 89

Random weights, 512 px. The process that exports and checks, and the builder's own, are measured
apart. A row goes to results/build_sd15.csv.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import tempfile
import threading
from itertools import pairwise
from pathlib import Path
from time import monotonic, sleep

from fit_sd15 import conditions, keep, peak_gb, sd15

RESULTS = Path(__file__).with_name("results") / "build_sd15.csv"
PROMPTS = [
    {"role": "background", "name": "background", "text": "good"},
    {"role": "masked", "name": "masked", "text": ""},
    {"role": "defect", "name": "hole", "text": "hole"},
]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--precision", default="float16")
    parser.add_argument("--capability", type=int, action="append", required=True)
    parser.add_argument("--rows", type=int, nargs=3, default=(1, 8, 32))
    parser.add_argument("--folder", type=Path, help="where to work; needs 12 GB")
    parser.add_argument("--note", default="", help="what else the machine was doing")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        row = measure(Path(folder), args) | conditions(args.note)
    keep(row, RESULTS)


class Builders(threading.Thread):
    """The most memory that any child held; what the system reports of a child counts its parent."""

    def __init__(self):
        super().__init__(daemon=True)
        self.peak = 0.0

    def run(self):
        while True:
            for child in multiprocessing.active_children():
                status = Path(f"/proc/{child.pid}/status")
                if status.exists() and (found := re.search(r"VmHWM:\s*(\d+)", status.read_text())):
                    self.peak = max(self.peak, int(found.group(1)) * 1024 / 1e9)
            sleep(0.5)


def measure(folder, args):
    from defectrt.export import build as building
    from defectrt.export.tensorrt.tensorrt_rtx import TensorRTRTX

    run = folder / "run"
    sd15().save(run / "model")
    (run / "run.json").write_text(json.dumps({"image_size": 512, "prompts": PROMPTS}))

    class Timed(building.Progress):
        """Notes when each stage begins, and the peak by then."""

        def update(self, done, **figures):
            if done > len(seconds) - 1:
                seconds.append(monotonic())
                peaks.append(peak_gb())
                print(f"{monotonic() - start:7.0f} s {peaks[-1]:5.1f} GB", figures, flush=True)

    building.Progress, seconds, peaks, start = Timed, [], [], monotonic()
    builders = Builders()
    builders.start()
    backend = TensorRTRTX(args.precision, tuple(args.rows), tuple(args.capability))
    out = building.build(run, folder / "engine", backend)
    took = [round(b - a) for a, b in pairwise(seconds)]
    names = ("encoder", "decoder", "denoiser")
    manifest = json.loads((out / "engine.json").read_text())
    return {
        "backend": f"tensorrt-rtx {manifest['provenance']['tools']['tensorrt-rtx']}",
        "precision": args.precision,
        "capabilities": " ".join(map(str, args.capability)),
        "rows": " ".join(map(str, args.rows)),
        **{f"export_{name}_s": took[2 * i] for i, name in enumerate(names)},
        **{f"build_{name}_s": took[2 * i + 1] for i, name in enumerate(names)},
        "check_s": took[6],
        "whole_s": round(monotonic() - start),
        "peak_export_gb": round(peaks[6], 2),
        "peak_builder_gb": round(builders.peak, 2),
        "peak_check_gb": round(peak_gb(), 2),
        **{f"{n}_mb": round((out / f"{n}.engine").stat().st_size / 1e6, 1) for n in names},
        **{
            f"error_{k}": f"{v:.1e}" for k, v in manifest["provenance"]["run"]["self_check"].items()
        },
    }


if __name__ == "__main__":
    main()
