"""One maker in a process of its own, so that its time and memory are its own.

    python -m benchmarks.arena.process SPEC.json

SPEC has ``call``, a ``module:function`` that is a maker, and what it is given; what it took goes
to ``took``, JSON.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Callable, Mapping
from inspect import signature
from pathlib import Path
from typing import Any

from defectrt.errors import DefectRTError, UsageError
from defectrt.training.data.samples import read_good
from defectrt.training.proving.material import read_real

from ..memory import held_by
from .makers import found
from .makers.writing import by_type

__all__ = ["main", "took"]


def took() -> dict[str, float]:
    """Seconds of CPU of this process and its children, and the most memory it held, MiB."""
    whose = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    usage = [resource.getrusage(who) for who in whose]
    cpu = sum(u.ru_utime + u.ru_stime for u in usage)
    return {"cpu_s": round(cpu, 1), "peak_mib": held_by(os.getpid())[1]}


def main(argv: list[str]) -> int:
    """Run the maker; 0 if it is done, else its message on standard error and 1."""
    spec: dict[str, Any] = json.loads(Path(argv[0]).read_bytes())
    try:
        shots = by_type(read_real(Path(spec["shots"])))
        given = [s for own in shots.values() for s in own[: spec["limit"]]]
        good = read_good(Path(spec["good"]))
        make = found(spec["call"])
        call = given, good, spec["count"], spec["seed"], Path(spec["out"])
        _check(make, spec["settings"])
        make(*call, **spec["settings"])
    except DefectRTError as error:
        print(error, file=sys.stderr)
        return 1
    Path(spec["took"]).write_text(json.dumps(took()))
    return 0


def _check(make: Callable[..., Any], settings: Mapping[str, Any]) -> None:
    """Raise `UsageError` for settings that a maker does not take, or lacks."""
    try:
        signature(make).bind(*range(5), **settings)
    except TypeError as error:
        raise UsageError(f"with: {error}") from None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
