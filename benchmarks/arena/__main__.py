"""Run an arena: one configuration, one table.

    python -m benchmarks.arena CONFIG.yaml --out DIR [--csv FILE] [--quiet]

DIR keeps all that is finished; the same command goes on. Rows are appended to --csv, by default
benchmarks/results/arena.csv, and printed. Ends with 7 if a row could not be made.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from defectrt.errors import DefectRTError, PartialError

from . import table
from .config import load
from .course import Course


def main(argv: list[str] | None = None) -> int:
    """0 if every row is there."""
    parser = argparse.ArgumentParser(prog="benchmarks.arena", description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder for all that is kept")
    parser.add_argument("--csv", type=Path, default=table.CSV)
    parser.add_argument("--quiet", action="store_true", help="the table and warnings alone")
    given = parser.parse_args(argv)
    for number in (signal.SIGINT, signal.SIGTERM):  # also where a shell started it aside
        signal.signal(number, signal.default_int_handler)
    try:
        course = Course(load(given.config), given.out.resolve(), given.quiet)
        lines = course.run()
        table.add(lines, given.csv)
        print(table.markdown([dict.fromkeys(table.columns(), "") | line for line in lines]))
        if course.failed:
            raise PartialError("\n".join(f"{n}: left out: {w}" for n, w in course.failed.items()))
    except DefectRTError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
