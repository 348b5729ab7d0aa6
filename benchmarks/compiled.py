"""The denoiser compiled by AOTInductor beside the one that ONNX Runtime runs, on the CPU, in turns.

    python benchmarks/compiled.py WORK [--size surfaces] [--rows 1 4 8] [--fixed 4] [--csv FILE]

Random weights take as long as trained ones. What is exported and compiled stays in WORK and is
taken again. Both are compared with PyTorch before anything is timed. --fixed also compiles a
program for one size of a batch, to see what a program for any size costs.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import subprocess
from pathlib import Path
from statistics import median
from time import perf_counter, thread_time

import numpy as np
import onnxruntime
import torch

from defectrt.export.aoti import compile_program, export_program
from defectrt.export.graphs import Onnx
from defectrt.export.rowstep import RowStep, map_size
from defectrt.export.source import Part
from defectrt.training.models.stable_diffusion import SIZES, new_model

TOLERANCE = 1e-4


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("--size", default="surfaces", choices=SIZES)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--fixed", type=int, nargs="*", default=[])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--note", default="")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(args.threads)
    part = denoiser(args.size)
    print(f"{'rows':>4} {'way':<14} {'p50 ms':>9} {'per row':>9} {'cpu ms':>9}  × ONNX")
    for rows in args.rows:
        ways = {"onnx": onnx(part, args.work, args.threads), "aoti": compiled(part, args.work)}
        if rows in args.fixed:
            ways["aoti fixed"] = compiled(part, args.work, rows)
        example = part.example(rows)
        with torch.no_grad():
            expected = [x.numpy() for x in part.module(**example)]
        for name, way in ways.items():
            check(name, way(example), expected)
        report(args, rows, measure(ways, example, args.rounds))


def denoiser(size: str) -> Part:
    """The row step of a model of that size and eight prompts, as the bundled engine has."""
    model = new_model(SIZES[size])
    embeddings, content = model.encode_prompts([f"kind {i}" for i in range(8)])
    side, channels = int(model.unet.config.sample_size), int(model.unet.config.in_channels)

    def example(rows: int) -> dict[str, torch.Tensor]:
        g = torch.Generator().manual_seed(0)
        mask = (torch.rand(rows, 1, side, side, generator=g) < 0.3).float()
        return {
            "latent": torch.randn(rows, channels, side, side, generator=g),
            "timestep": torch.randint(1000, (rows,), generator=g),
            "mask": mask,
            "inside": torch.arange(rows) % 8,
            "outside": (torch.arange(rows) + 1) % 8,
            "a": 0.5 + torch.rand(rows, generator=g),
            "b": torch.randn(rows, generator=g),
            "region": 1 - mask,
            "anchor": torch.randn(rows, channels, side, side, generator=g),
        }

    module = RowStep(model, embeddings, content, map_size(model)).eval()
    return Part("denoiser", module, ("next_latent", "attention"), example)


def onnx(part: Part, work: Path, threads: int):
    path = work / "denoiser.onnx"
    if not path.exists():
        Onnx().export(part, work, print)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    return lambda example: session.run(None, {k: v.numpy() for k, v in example.items()})


def compiled(part: Part, work: Path, rows: int | None = None):
    """A program for any size, or for one."""
    path = work / f"denoiser-{rows or 'any'}.pt2"
    if not path.exists():
        program = export_program(part.module, part.example(rows or 3), fixed=rows is not None)
        compile_program(program, path, "cpu")
    loader = torch._C._aoti.AOTIModelPackageLoader(str(path), "model", False, 1, -1)
    return lambda example: [x.numpy() for x in loader.run(list(example.values()))]


def check(name: str, outputs, expected) -> None:
    for got, wanted in zip(outputs, expected, strict=True):
        error = np.abs(got - wanted).max() / np.abs(wanted).max()
        if not error <= TOLERANCE:
            raise SystemExit(f"{name} is {error:.1e} from PyTorch: nothing to compare")


def measure(ways, example, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Wall and this thread's processor seconds, a way after the other in every round."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, way in ways.items():
            wall, processor = perf_counter(), thread_time()
            way(example)
            times[name].append((perf_counter() - wall, thread_time() - processor))
    return {name: taken[1:] for name, taken in times.items()}


def report(args, rows: int, times) -> None:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    base = median(cpu for _, cpu in times["onnx"])
    lines = []
    for name, taken in times.items():
        wall, cpu = (median(t[i] for t in taken) * 1e3 for i in (0, 1))
        ratio = 1e3 * base / cpu
        print(f"{rows:4} {name:<14} {wall:9.1f} {wall / rows:9.1f} {cpu:9.1f}  {ratio:.2f}")
        lines.append(
            {
                "way": name,
                "model": args.size,
                "rows": rows,
                "threads": args.threads,
                "p50_wall_ms": round(wall, 1),
                "p50_cpu_ms": round(cpu, 1),
                "min_cpu_ms": round(1e3 * min(t[1] for t in taken), 1),
                "times_onnx": round(ratio, 2),
                "rounds": args.rounds,
                "torch": torch.__version__,
                "onnxruntime": onnxruntime.__version__,
                "commit": commit,
                "machine": platform.machine(),
                "cpus": os.cpu_count(),
                "load": round(os.getloadavg()[0], 1),
                "note": args.note,
            }
        )
    if args.csv:
        new = not args.csv.exists()
        with args.csv.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(lines[0]))
            if new:
                writer.writeheader()
            writer.writerows(lines)


if __name__ == "__main__":
    main()
