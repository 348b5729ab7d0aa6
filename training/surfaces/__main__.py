"""Write images: OUT/good and, for every type of defect, OUT/<type> with images and masks."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from defectrt.images.png import encode_png
from defectrt.progress import Progress

from . import DEFECT_TYPES, FAMILIES, draw


def write(out: Path, count: int, size: int, seed: int, window: int) -> None:
    """``count`` images of every defect type and as many good ones, the families in turn."""
    families = sorted(FAMILIES)
    groups = [None, *DEFECT_TYPES]
    with Progress(count * len(groups), "surfaces") as progress:
        for group, defect in enumerate(groups):
            folder = out / (defect or "good")
            folder.mkdir(parents=True, exist_ok=True)
            for i in range(count):
                number = (seed * 100 + group) * 1_000_000 + i
                family = families[i % len(families)]
                image, mask = draw(number, family, size, defect, window=window)
                (folder / f"{family}_{i:05}.png").write_bytes(encode_png(image))
                if defect:
                    label = mask.astype(np.uint8) * np.uint8(255)
                    (folder / f"{family}_{i:05}_mask.png").write_bytes(encode_png(label))
                progress.update(group * count + i + 1)


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
    args = parser.parse_args()
    write(args.out, args.count, args.size, args.seed, args.window)


if __name__ == "__main__":
    main()
