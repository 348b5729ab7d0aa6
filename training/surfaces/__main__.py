"""Write images: OUT/good and, for every type of defect, OUT/<type> with images and masks."""

from __future__ import annotations

import argparse
from pathlib import Path

from defectrt.cores import cores

from .writing import write


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m defectrt.training.surfaces", description=__doc__
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=300, help="images of every defect type")
    parser.add_argument("--size", type=int, default=144, help="side in px")
    parser.add_argument("--seed", type=int, default=0, help="other seeds, other images")
    parser.add_argument(
        "--window", type=int, default=96, help="side in px that the model will see; sets the scale"
    )
    parser.add_argument("--workers", type=int, default=cores(), help="processes that draw")
    args = parser.parse_args()
    write(args.out, args.count, args.size, args.seed, args.window, args.workers)


if __name__ == "__main__":
    main()
