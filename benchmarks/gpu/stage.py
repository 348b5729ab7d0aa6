"""The process of one stage."""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import NoReturn

import torch

from .plan import NAMES
from .results import FILE, DeviceLostError, Results


@dataclass(frozen=True)
class Context:
    """What a stage is given.

    out       folder for what comes back
    bundle    what was carried along, see `gpu.bundle`
    before    what an earlier call left, if anything
    seconds   that the stage has; it is ended then
    toy       toy sizes, on the CPU
    """

    results: Results
    out: Path
    bundle: Path
    before: Path
    seconds: float
    toy: bool
    started: float = field(default_factory=time.monotonic)

    @property
    def device(self) -> str:
        """For torch."""
        return "cpu" if self.toy else "cuda"

    def left(self) -> float:
        """Seconds until the stage is ended."""
        return self.seconds - (time.monotonic() - self.started)


def main(argv: list[str] | None = None) -> int:
    """Run it; 3 if the device was lost and another process should go on, 2 without a GPU."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=NAMES)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--before", type=Path, required=True)
    parser.add_argument("--toy", action="store_true")
    given = parser.parse_args(argv)
    if not given.toy and not torch.cuda.is_available():
        print("PyTorch finds no NVIDIA GPU here; --toy rehearses on the CPU", file=sys.stderr)
        return 2
    healthy = None if given.toy else torch.cuda.synchronize
    results = Results(given.out / FILE, given.stage, healthy)
    context = Context(results, given.out, given.bundle, given.before, given.seconds, given.toy)
    try:
        import_module(f"gpu.{given.stage}").run(context)
    except DeviceLostError as error:
        print(f"the device is lost: {error}", file=sys.stderr)
        return 3
    return 0


def leave(code: int) -> NoReturn:
    """End this process without what libraries do at their end: a pool of compilers hung there."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    try:
        code = main()
    except Exception:
        traceback.print_exc()
        code = 1
    leave(code)
