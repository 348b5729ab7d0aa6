"""Can a classifier tell made defects from real ones? Near 50 % it cannot.

    python benchmarks/real_or_made.py REAL MADE [MADE …] [--types crack,hole] [--side 48]

REAL and each MADE are datasets with masks, in any layout that `defectrt data inspect` knows, or
outputs of `synthesize`. The classifier is that of `defectrt evaluate`, with a window of one side
for all types. One line of JSON a set and type: the share of right guesses over the draws, 10th /
50th / 90th percentile.
The first line sets one half of the real ones against the other: what chance looks like. ``beside``
is the same for windows beside the defects: what the images alone give away.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from defectrt.training.evaluation.two_sample import seen, told_apart
from defectrt.training.proving.material import read_made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("real", type=Path)
    parser.add_argument("made", type=Path, nargs="+")
    parser.add_argument("--types", default="")
    parser.add_argument("--side", type=int, default=48)
    options = parser.parse_args()
    real, *made = (_by_type(folder, options.side) for folder in (options.real, *options.made))
    names = [name for name in options.types.split(",") if name] or sorted(real)
    for name in names:
        own, beside = real[name]
        half = len(own) // 2
        _tell("real", name, own[:half], own[half:])
        for folder, theirs in zip(options.made, made, strict=True):
            _tell(str(folder), name, own, theirs[name][0])
            _tell(f"{folder}, beside", name, beside, theirs[name][1])


def _by_type(folder: Path, side: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Of each type, what its defects look like [n,k], and what lies beside them."""
    samples = [picture.sample for picture in read_made(folder).pictures]
    own = {s.defect_type: [o for o in samples if o.defect_type == s.defect_type] for s in samples}
    return {
        name: (
            np.array([seen(sample, side) for sample in of_type]),
            np.array([seen(sample, side, aside=True) for sample in of_type]),
        )
        for name, of_type in own.items()
    }


def _tell(what: str, name: str, real: np.ndarray, made: np.ndarray) -> None:
    right = told_apart(real, made)
    each = min(len(real), len(made))
    said = right and [round(share, 3) for share in right]
    print(json.dumps({"made": what, "type": name, "each": each, "right": said}))


if __name__ == "__main__":
    main()
