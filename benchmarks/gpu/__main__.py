"""Run a call's stages, or some by name; see `benchmarks/gpu.sh`."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

from . import plan
from .results import FILE, merge

#: Times the limits, in a rehearsal.
_PATIENCE = 4


def main(argv: list[str] | None = None) -> int:
    """0 if every stage is done, 1 if not."""
    parser = argparse.ArgumentParser(prog="benchmarks/gpu.sh", description=__doc__)
    parser.add_argument("plan", choices=[*plan.PLANS, *plan.NAMES], nargs="+", metavar="PLAN|STAGE")
    parser.add_argument("--out", type=Path, required=True, help="folder for all that comes back")
    parser.add_argument("--seconds", type=float, default=560, help="for the whole call")
    parser.add_argument("--bundle", type=Path, default=Path(".gpu"))
    parser.add_argument("--before", type=Path, help="folder that an earlier call left; go on there")
    parser.add_argument("--toy", action="store_true", help="a rehearsal: toy sizes, on the CPU")
    arguments = parser.parse_args(argv)
    out = arguments.out.resolve()
    before = arguments.before or arguments.bundle / "before"
    merge(out / FILE, [before / FILE])
    options = ["--bundle", str(arguments.bundle), "--before", str(before)]
    options += ["--toy"] * arguments.toy
    note = arguments.bundle / "commit"
    if note.exists():
        os.environ["DEFECTRT_COMMIT"] = note.read_text().strip()
    if arguments.toy:
        os.environ["TRITON_INTERPRET"] = "1"
    chosen = stages(arguments.plan)
    if arguments.toy:  # a C++ compiler on a few cores takes longer than Triton on many
        chosen = [replace(stage, limit=_PATIENCE * stage.limit) for stage in chosen]
    failed = plan.run(chosen, out, arguments.seconds, options)
    print(plan.summary(out), flush=True)
    return int(failed > 0)


def stages(names: list[str]) -> list[plan.Stage]:
    """Those of the plans named; a stage that is named itself may take all the time."""
    found: list[plan.Stage] = []
    for name in names:
        found += plan.PLANS.get(name, (plan.Stage(name, 1.0, float("inf")),))
    return found


if __name__ == "__main__":
    sys.exit(main())
