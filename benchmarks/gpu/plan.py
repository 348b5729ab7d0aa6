"""Which stages run in which call, each a process of its own with a limit of time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .results import FILE, Results, read
from .verdicts import verdicts

LOG = "log.txt"
#: Most bytes of a file that comes back.
MOST_BYTES = 16 << 20
#: Seconds between asking a process to end and ending it.
_GRACE = 5.0
#: Seconds that the call itself needs at its end.
_RESERVE = 5.0


@dataclass(frozen=True)
class Stage:
    """A stage of a plan.

    share  of the time that is left, beside the shares of the stages after it
    limit  seconds, whatever is left
    """

    name: str
    share: float
    limit: float


#: The most valuable first. The second call goes on with whatever of the first is not finished.
PLANS = {
    "first": (
        Stage("probe", 0.5, 60),
        Stage("correctness", 1.0, 120),
        Stage("tiny", 2.0, 200),
        Stage("timings", 1.5, 200),
        Stage("table", 4.0, 600),
    ),
    "second": (
        Stage("probe", 0.1, 30),
        Stage("correctness", 0.2, 120),
        Stage("tiny", 0.4, 200),
        Stage("timings", 0.4, 200),
        Stage("table", 1.5, 600),
        Stage("training", 4.0, 400),
    ),
}
NAMES = tuple(dict.fromkeys(stage.name for plan in PLANS.values() for stage in plan))


def allowance(stages: Sequence[Stage], left: float) -> float:
    """Seconds for the first of ``stages``; what it does not take, the later ones have."""
    return min(stages[0].limit, left * stages[0].share / sum(stage.share for stage in stages))


def run(
    stages: Sequence[Stage],
    out: Path,
    seconds: float,
    options: Sequence[str] = (),
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """Run all stages in ``seconds``, whatever becomes of each; the number that are not done.

    ``out`` gets the results (`results.FILE`) and what the processes complain of (`LOG`).
    ``options`` go to every stage. A stage that an earlier call has done is passed over.
    """
    deadline = clock() + seconds - _RESERVE
    failed = 0
    for position, stage in enumerate(stages):
        results = Results(out / FILE, stage.name)
        if results.ended == "done":
            print(f"[{stage.name}] done before", flush=True)
            continue
        allowed = allowance(stages[position:], deadline - clock())
        failed += _stage(results, out, allowed, options, clock) != "done"
    shorten(out / LOG)
    return failed


def _stage(
    results: Results, out: Path, seconds: float, options: Sequence[str], clock: Callable[[], float]
) -> str:
    """Run a stage until it is done, its time is over, or it dies without getting further."""
    start, how = clock(), "time"
    while (left := seconds - (clock() - start)) > 0:
        before = len(results.finished)
        code = process(command(results.stage, out, left, options), out / LOG, left)
        if code is None:
            how = "time"
            break
        if code == 0:
            how = "done"
            break
        how = "failed"
        if key := results.open:
            results.write({"key": key, "error": f"the process died: {_cause(code)}"})
        if len(results.finished) == before:
            break
    rows = [row for row in results.rows if "key" in row and "begun" not in row]
    results.write(
        {
            "end": how,
            "seconds": round(clock() - start, 1),
            "of": round(seconds, 1),
            "rows": len(rows),
            "errors": sum("error" in row for row in rows),
        }
    )
    return how


def command(stage: str, out: Path, seconds: float, options: Sequence[str]) -> list[str]:
    """What starts a stage's process."""
    given = ["--out", str(out), "--seconds", f"{seconds:.1f}", *options]
    return [sys.executable, "-P", "-m", "gpu.stage", stage, *given]


def process(command: Sequence[str], log: Path, seconds: float) -> int | None:
    """Run it with all it starts; its exit code, or None if its time was over.

    Its standard output is this process's, its errors go to ``log``.
    """
    with log.open("ab") as file:
        child = subprocess.Popen(command, stderr=file, process_group=0)
    try:
        return child.wait(max(seconds, 0.1))
    except subprocess.TimeoutExpired:
        return None
    finally:
        _end(child)


def _end(child: subprocess.Popen[bytes]) -> None:
    """End what is left of a process and its group."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(child.pid, number)
        except ProcessLookupError:
            break
        try:
            child.wait(_GRACE)
        except subprocess.TimeoutExpired:
            continue


def _cause(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def shorten(path: Path, most: int = MOST_BYTES - (1 << 20)) -> None:
    """Cut the middle out of a file that is too large to come back."""
    if not path.exists() or path.stat().st_size <= most:
        return
    data = path.read_bytes()
    half = most // 2
    path.write_bytes(data[:half] + b"\n[cut]\n" + data[-half:])


def summary(out: Path) -> str:
    """How every stage ended, what had an error, and which kernels earn their place."""
    lines = []
    for row in read(out / FILE):
        if "end" in row:
            lines.append(
                f"{row['stage']:12} {row['end']:7} {row['seconds']:6.1f} of {row['of']:.0f} s, "
                f"{row['rows']} rows, {row['errors']} errors"
            )
        elif "error" in row:
            lines.append(f"{row['stage']:12} ERROR   {row['key']}: {row['error']}")
    lines += verdicts(read(out / FILE))
    files = sorted(path for path in out.rglob("*") if path.is_file())
    lines += [f"{path.name}: {path.stat().st_size / 1e6:.2f} MB" for path in files]
    return "\n".join(lines)
