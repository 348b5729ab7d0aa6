"""Steps that are done once: each under the hash of what goes into it, in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from defectrt.errors import Cancelled, TrainingError
from defectrt.files import sha256_of, write_whole
from defectrt.training.proving.runs import key_of

__all__ = ["ROOT", "Cost", "Step", "digest", "do", "environment"]

ROOT = Path(__file__).parents[2]
#: Stands in every key: another way to make is another step.
_WAY = 1


@dataclass(frozen=True)
class Cost:
    """What a step took: seconds by the clock, seconds of CPU, MiB at most."""

    seconds: float
    cpu_s: float
    peak_mib: float


@dataclass(frozen=True)
class Step:
    """A maker's call.

    call     module:function
    fold     the folder it takes shots and good pictures from
    out      what it writes; beside it lie OUT.json, what went in and what it took, and OUT.txt,
             what it said
    limit    shots a type; None: all
    engine   what the engine it uses is, by its fingerprint
    """

    call: str
    fold: Path
    out: Path
    count: int
    seed: int
    limit: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    engine: str = ""

    def key(self) -> str:
        """The hash of all that decides what is written."""
        parts = ("call", "count", "seed", "limit", "settings", "engine")
        own = {name: getattr(self, name) for name in parts}
        return key_of(own | {"way": _WAY, "given": [digest(self.fold / d) for d in _GIVEN]})


_GIVEN = ("shots", "good")


def digest(folder: Path) -> str:
    """Of all files in a folder and below, by name."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return key_of({p.relative_to(folder).as_posix(): sha256_of(p) for p in files})


def environment() -> dict[str, str]:
    """In which a process finds this package from anywhere."""
    before = os.environ.get("PYTHONPATH")
    return dict(os.environ) | {"PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [before])])}


def do(step: Step) -> Cost:
    """Do a step unless it is done; what was begun with the same input is gone on with.

    Raises `TrainingError` with what the process said last, `Cancelled` at Ctrl-C.
    """
    record, key = step.out.with_name(f"{step.out.name}.json"), step.key()
    before = json.loads(record.read_bytes()) if record.is_file() else {}
    if before.get("key") == key and "cost" in before and step.out.is_dir():
        return Cost(**before["cost"])
    if before.get("key") != key:
        shutil.rmtree(step.out, ignore_errors=True)
    write_whole(record, json.dumps({"key": key}).encode())
    began = time.monotonic()
    own = _run(step)
    cost = {"seconds": round(time.monotonic() - began, 1)} | own
    write_whole(record, json.dumps({"key": key, "cost": cost}, indent=1).encode())
    return Cost(**cost)


def _run(step: Step) -> dict[str, Any]:
    spec, took, said = (step.out.with_name(f"{step.out.name}.{n}") for n in ("spec", "took", "txt"))
    given = {"call": step.call, "count": step.count, "seed": step.seed, "limit": step.limit}
    given |= {"settings": dict(step.settings), "out": str(step.out), "took": str(took)}
    given |= {name: str(step.fold / name) for name in _GIVEN}
    write_whole(spec, json.dumps(given).encode())
    words = [sys.executable, "-m", "benchmarks.arena.process", str(spec)]
    with said.open("wb") as file:
        process = subprocess.Popen(words, stdout=file, stderr=file, env=environment())
        try:
            code = process.wait()
        except KeyboardInterrupt:
            process.terminate()
            process.wait()
            raise Cancelled("stopped; run the same command again to go on") from None
    if code:
        last = said.read_text(errors="replace").strip().splitlines()[-1:]
        raise TrainingError("".join(last) or f"ended with {code}")
    own: dict[str, Any] = json.loads(took.read_bytes())
    spec.unlink()
    took.unlink()
    return own
