"""What waiting threads cost when cores are shared: spinning against sleeping, side by side.

python benchmarks/shared_cores.py [CSV]

Trains a stack of convolutions (PyTorch, GNU OpenMP) and runs the bundled denoiser (ONNX Runtime),
both with a thread a core, alone and beside as many busy processes as there are cores.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

CORES = len(os.sched_getaffinity(0))
ENGINE = Path(__file__).parents[1] / "runtime" / "engines" / "bundled"
FIELDS = ("what", "waiting", "beside", "seconds", "cores")

TORCH = """
import sys, time, torch
torch.set_num_threads(int(sys.argv[1]))
net = torch.nn.Sequential(*[torch.nn.Conv2d(64, 64, 3, padding=1) for _ in range(6)])
rows = torch.randn(8, 64, 24, 24)
net(rows).sum().backward()
start = time.perf_counter()
for _ in range(40):
    net(rows).sum().backward()
print(time.perf_counter() - start)
"""

ONNX = """
import sys, time
import numpy as np
import onnxruntime as ort
options = ort.SessionOptions()
options.intra_op_num_threads = int(sys.argv[1])
options.add_session_config_entry("session.intra_op.allow_spinning", sys.argv[2])
session = ort.InferenceSession(sys.argv[3], options, providers=["CPUExecutionProvider"])
types = {"tensor(float)": np.float32, "tensor(int64)": np.int64}
rows = {
    i.name: np.zeros([8 if isinstance(n, str) else n for n in i.shape], types[i.type])
    for i in session.get_inputs()
}
session.run(None, rows)
start = time.perf_counter()
for _ in range(8):
    session.run(None, rows)
print(time.perf_counter() - start)
"""


def seconds(what: str, waiting: str) -> float:
    """One run in a process of its own."""
    sleeps = waiting == "sleeping"
    environment = os.environ | {"OMP_WAIT_POLICY": "passive" if sleeps else "active"}
    environment.pop("OMP_NUM_THREADS", None)
    words = {
        "torch": [TORCH, str(CORES)],
        "onnxruntime": [ONNX, str(CORES), "0" if sleeps else "1", str(ENGINE / "denoiser.onnx")],
    }[what]
    result = subprocess.run(
        [sys.executable, "-c", *words], env=environment, capture_output=True, text=True, check=True
    )
    return float(result.stdout)


def main() -> None:
    """All cases, the two ways of waiting in turn."""
    rows = []
    for beside in (0, CORES):
        busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(beside)]
        try:
            for what in ("torch", "onnxruntime"):
                for waiting in ("spinning", "sleeping") * 2:
                    took = round(seconds(what, waiting), 2)
                    rows.append((what, waiting, beside, took, CORES))
                    print(*rows[-1], flush=True)
        finally:
            for process in busy:
                process.kill()
    if len(sys.argv) > 1:
        with Path(sys.argv[1]).open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(FIELDS)
            writer.writerows(rows)


if __name__ == "__main__":
    main()
