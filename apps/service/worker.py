"""One job in a process of its own: ``defectrt synthesize`` that tells its service how far it is.

python -m defectrt.apps.service.worker JOB.yaml

A line of JSON on standard output for every sample, and for an error, with its exit code.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from defectrt.cli.streams import open_streams
from defectrt.config.job import JobConfig
from defectrt.config.yaml import read_yaml
from defectrt.errors import DefectRTError
from defectrt.synthesis.job import JobState, synthesize

__all__ = ["main"]


def main(config: Path) -> int:
    """Run the job of a configuration; returns the command's exit code."""
    open_streams()
    try:
        job = JobConfig(**read_yaml(config))
        synthesize(config=job, wait=True, quiet=True, progress=_tell).check()
    except DefectRTError as error:
        print(json.dumps({"message": str(error)}), flush=True)
        return error.exit_code
    return 0


def _tell(state: JobState) -> None:
    told = asdict(state)
    print(json.dumps({"asked": told.pop("total")} | told), flush=True)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
