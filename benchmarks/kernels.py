"""Time every kernel beside its floor, its plain form and that form compiled. Needs a GPU.

    python benchmarks/kernels.py                        all operators
    python benchmarks/kernels.py geglu --json           one, as JSON lines

The cases are the tests' own and SD 1.5's sizes. A case outside its error budget is not timed, and
the exit code says so. The floor is bytes over the measured bandwidth or FLOPs over the measured
matrix-product rate, whichever takes longer; both are measured first, on this card.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from defectrt.kernels.case import Case, budget

OPERATORS = ("masked_attention", "row_step", "geglu")


def measure(run: Callable[[], object], repeats: int = 50) -> tuple[float, float]:
    """p50 and p99 seconds of ``run``, each between two events, after warming up.

    256 MiB are written between the runs, so that no case finds its inputs in the L2 cache.
    """
    flush = torch.empty(256 << 20, dtype=torch.int8, device="cuda")
    for _ in range(5):
        run()
    times = []
    for _ in range(repeats):
        flush.zero_()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    cuts = statistics.quantiles(times, n=100, method="inclusive")
    return statistics.median(times), cuts[98]


def ceilings() -> tuple[float, float]:
    """Measured bytes/s of a copy and FLOP/s of a large 16-bit matrix product."""
    big = torch.empty(1 << 30, dtype=torch.int8, device="cuda")
    other = torch.empty_like(big)
    copy, _ = measure(lambda: other.copy_(big), 20)
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.float16)
    product, _ = measure(lambda: a @ a, 20)
    return 2 * big.numel() / copy, 2 * 8192**3 / product


def rows(
    operator: str, bandwidth: float, peak: float, device: str = "cuda"
) -> Iterator[dict[str, Any]]:
    """One row a case: budget, then times; ``refused`` where the budget does not hold."""
    cases = importlib.import_module(f"defectrt.kernels.{operator}.cases")
    kernel = importlib.import_module(f"defectrt.kernels.{operator}.kernel")
    for case in (*cases.CASES, *cases.SIZES):
        found = budget(case, kernel, device)
        row = {
            "operator": operator,
            "case": str(case),
            "error": found.fast,
            "limit": found.limit,
            "refused": not found.holds,
        }
        if found.holds and case in cases.SIZES:
            row |= times(case, kernel, bandwidth, peak)
        yield row


def times(case: Case, kernel: Any, bandwidth: float, peak: float) -> dict[str, Any]:
    """Microseconds of kernel, plain form and compiled plain form, and the floor's."""
    inputs = case.inputs("cuda")
    cost = case.cost()
    compiled = torch.compile(case.reference, dynamic=False)
    p50, p99 = measure(lambda: case.launch(kernel, *inputs))
    plain, _ = measure(lambda: case.reference(*inputs))
    compiler, _ = measure(lambda: compiled(*inputs))
    floor = cost.seconds(bandwidth, peak)
    return {
        "bytes": cost.bytes,
        "flops": cost.flops,
        "floor_us": 1e6 * floor,
        "p50_us": 1e6 * p50,
        "p99_us": 1e6 * p99,
        "plain_us": 1e6 * plain,
        "compiled_us": 1e6 * compiler,
        "of_floor": floor / p50,
        "wins": p50 < min(plain, compiler),
    }


def commit() -> str:
    """The commit that is measured, with + where files differ from it."""
    root = Path(__file__).parent
    command = ["git", "describe", "--always", "--dirty=+"]
    return subprocess.run(
        command, cwd=root, capture_output=True, text=True, check=False
    ).stdout.strip()


def main() -> int:
    """Print a row a case; 1 if any case was refused, 2 without a GPU."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("operators", nargs="*", help=f"of {', '.join(OPERATORS)}; all by default")
    parser.add_argument("--json", action="store_true", help="JSON lines instead of a table")
    arguments = parser.parse_args()
    if unknown := set(arguments.operators) - set(OPERATORS):
        parser.error(f"no operator {', '.join(sorted(unknown))}; choose of {', '.join(OPERATORS)}")
    if not torch.cuda.is_available():
        print(
            "the kernels are timed on an NVIDIA GPU, and PyTorch finds none here", file=sys.stderr
        )
        return 2
    bandwidth, peak = ceilings()
    head = {
        "commit": commit(),
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "bandwidth_TBs": round(bandwidth / 1e12, 3),
        "peak_TFLOPs": round(peak / 1e12, 1),
    }
    print(json.dumps(head))
    refused = False
    for operator in arguments.operators or OPERATORS:
        for row in rows(operator, bandwidth, peak):
            refused |= row["refused"]
            print(json.dumps(row) if arguments.json else line(row), flush=True)
    return int(refused)


def line(row: dict[str, Any]) -> str:
    """A row for the eye."""
    name = f"{row['operator']} {row['case']}: error {row['error']:.1e} of {row['limit']:.1e}"
    if row["refused"]:
        return f"REFUSED {name}"
    if "p50_us" not in row:
        return name
    return (
        f"{name}; {row['p50_us']:.1f} µs (p99 {row['p99_us']:.1f}), floor {row['floor_us']:.1f} "
        f"({row['bytes'] / 1e6:.1f} MB, {row['flops'] / 1e9:.2f} GFLOP), "
        f"{100 * row['of_floor']:.0f} % of it; plain {row['plain_us']:.1f}, "
        f"compiled {row['compiled_us']:.1f}{'' if row['wins'] else ' - LOSES'}"
    )


if __name__ == "__main__":
    sys.exit(main())
