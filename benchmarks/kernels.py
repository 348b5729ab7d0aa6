"""Time every kernel beside its floor and what libraries do, eager and compiled. Needs a GPU.

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
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from gpu.conditions import commit
from torch._dynamo.testing import CompileCounterWithBackend
from torch._inductor import config as inductor

from defectrt.kernels.case import Case, budget

OPERATORS = ("geglu", "masked_attention", "row_step", "self_attention")


@dataclass(frozen=True)
class Clock:
    """Times runs on a device; without a GPU only to rehearse what is done with one."""

    device: str = "cuda"
    repeats: int = 50

    def measure(self, run: Callable[[], object]) -> tuple[float, float]:
        """p50 and p99 seconds of ``run``, after warming up.

        On a GPU each run lies between two events, and 256 MiB are written between the runs, so
        that no case finds its inputs in the L2 cache.
        """
        for _ in range(min(5, self.repeats)):
            run()
        once = self._event_seconds if self.device == "cuda" else _seconds
        times = [once(run) for _ in range(self.repeats)]
        cuts = statistics.quantiles(times, n=100, method="inclusive")
        return statistics.median(times), cuts[98]

    @cached_property
    def _flush(self) -> torch.Tensor:
        return torch.empty(256 << 20, dtype=torch.int8, device=self.device)

    def _event_seconds(self, run: Callable[[], object]) -> float:
        self._flush.zero_()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def ceilings(clock: Clock, small: bool = False) -> tuple[float, float]:
    """Measured bytes/s of a copy and FLOP/s of a large 16-bit matrix product."""
    size, n = (1 << 24, 256) if small else (1 << 30, 8192)
    big = torch.empty(size, dtype=torch.int8, device=clock.device)
    other = torch.empty_like(big)
    copy, _ = clock.measure(lambda: other.copy_(big))
    a = torch.randn(n, n, device=clock.device, dtype=torch.float16)
    product, _ = clock.measure(lambda: a @ a)
    return 2 * size / copy, 2 * n**3 / product


def modules(operator: str) -> tuple[Any, Any]:
    """An operator's cases and its kernel."""
    cases, kernel = (
        importlib.import_module(f"defectrt.kernels.{operator}.{name}")
        for name in ("cases", "kernel")
    )
    return cases, kernel


def row(
    operator: str, case: Case, clock: Clock, ceilings: tuple[float, float], timing: bool
) -> dict[str, Any]:
    """Budget, then times where ``timing`` wants them; ``refused`` where it does not hold."""
    _, kernel = modules(operator)
    found = budget(case, kernel, clock.device)
    row = {
        "operator": operator,
        "case": str(case),
        "found": found.fast,
        "limit": found.limit,
        "refused": not found.holds,
    }
    return row | times(case, kernel, clock, ceilings) if found.holds and timing else row


def times(case: Case, kernel: Any, clock: Clock, ceilings: tuple[float, float]) -> dict[str, Any]:
    """Microseconds of kernel, library as it is and compiled, and the floor's.

    ``not_compiled`` says why there is no compiled form; ``wins`` is over those that there are, and
    ``gain_us`` what the kernel saves of an evaluation, in all layers of this shape.
    """
    inputs = case.inputs(clock.device)
    cost = case.cost()
    floor = cost.seconds(*ceilings)
    p50, p99 = clock.measure(lambda: case.launch(kernel, *inputs))
    library, _ = clock.measure(lambda: case.library(*inputs))
    found = {
        "bytes": cost.bytes,
        "flops": cost.flops,
        "floor_us": 1e6 * floor,
        "p50_us": 1e6 * p50,
        "p99_us": 1e6 * p99,
        "library_us": 1e6 * library,
    } | compiled(case.library, inputs, clock)
    best = min(library, found.get("compiled_us", float("inf")) / 1e6)
    gain = 1e6 * case.layers * (best - p50)
    return found | {"of_floor": floor / p50, "wins": p50 < best, "gain_us": gain}


def compiled(
    function: Callable[..., Any], inputs: tuple[Any, ...], clock: Clock, **options: Any
) -> dict[str, Any]:
    """Microseconds of a function compiled for these inputs alone, with Inductor's options.

    Every case has its own compiler state: after eight sizes Dynamo compiles no more, and runs what
    it is given as it is. So what it compiled is counted.
    """
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("inductor")
    run = torch.compile(function, dynamic=False, backend=counter)
    try:
        with inductor.patch(options):
            seconds, _ = clock.measure(lambda: run(*inputs))
    except Exception as error:
        return {"not_compiled": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}
    if not counter.frame_count:
        return {"not_compiled": "Dynamo ran it as it is"}
    return {"compiled_us": 1e6 * seconds}


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
    clock = Clock()
    bandwidth, peak = found = ceilings(clock)
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
        cases, _ = modules(operator)
        for case in (*cases.CASES, *cases.SIZES):
            figures = row(operator, case, clock, found, timing=case in cases.SIZES)
            refused |= figures["refused"]
            print(json.dumps(figures) if arguments.json else line(figures), flush=True)
    return int(refused)


def line(row: dict[str, Any]) -> str:
    """A row for the eye."""
    name = f"{row['operator']} {row['case']}: error {row['found']:.1e} of {row['limit']:.1e}"
    if row["refused"]:
        return f"REFUSED {name}"
    if "p50_us" not in row:
        return name
    compiled = (
        f"compiled {row['compiled_us']:.1f}"
        if "compiled_us" in row
        else f"NOT COMPILED: {row['not_compiled']}"
    )
    return (
        f"{name}; {row['p50_us']:.1f} µs (p99 {row['p99_us']:.1f}), floor {row['floor_us']:.1f} "
        f"({row['bytes'] / 1e6:.1f} MB, {row['flops'] / 1e9:.2f} GFLOP), "
        f"{100 * row['of_floor']:.0f} % of it; library {row['library_us']:.1f}, "
        f"{compiled}{'' if row['wins'] else ' - LOSES'}"
    )


if __name__ == "__main__":
    sys.exit(main())
