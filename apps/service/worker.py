"""One job in a process of its own: ``defectrt synthesize`` that tells its service how far it is.

python -m defectrt.apps.service.worker JOB.yaml

A line of JSON on standard output for every sample; an error on standard error, with its exit code.
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
        synthesize(config=JobConfig(**read_yaml(config)), quiet=True, progress=_tell).check()
    except DefectRTError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def _tell(state: JobState) -> None:
    print(json.dumps(asdict(state)), flush=True)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
