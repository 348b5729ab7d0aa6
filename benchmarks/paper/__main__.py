"""The paper's tables and figures, by one command and one configuration.

    python -m benchmarks.paper CONFIG OUT [--model DIR] [--data NAME=DIR …] [--device cuda]

CONFIG is a YAML file, see `config.py`: small.yaml beside this file is for two cores, paper.yaml
the paper's own scale with Stable Diffusion, MVTec AD and MVTec LOCO AD. OUT gets paper.csv, a row a
figure; paper.md, the tables; and for every category and fold its shots, engines, made pictures,
evaluations, proof and sheet.png. Whatever stops it, the same command goes on.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .command import run_as_command
from .config import configured
from .run import TABLES, run


def main() -> None:
    """Read the command line and the configuration, and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", help="Stable Diffusion to start from, with LoRA")
    parser.add_argument("--data", action="append", default=[], metavar="NAME=DIR")
    parser.add_argument("--device")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--quiet", action="store_true")
    options = parser.parse_args()
    config = configured(options.config, options)
    run(config, options.out, quiet=options.quiet)
    print((options.out / TABLES).read_text(), end="")
    print(options.out / TABLES, file=sys.stderr)


if __name__ == "__main__":
    run_as_command(main)
