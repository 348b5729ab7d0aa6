"""Few shots to learn from and all else to test on, no workpiece on both sides, in two folds.

    python benchmarks/arena/folds.py DATASET OUT [--types blowhole,crack] [--shots 5]

Half of the workpieces of every type make a side; fold 0 learns from one and tests on the other,
fold 1 the other way round. OUT/0 and OUT/1 get

    shots/TYPE   pictures and NAME_mask.png, of as many workpieces as there are
    good         good pictures of the side that learns, to paint on
    all/TYPE     every defective picture of that side: what more real ones would have given
    test/TYPE    every picture of the other side, with its mask; test/good, as many at most
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np

from defectrt.files import write_whole
from defectrt.images.png import encode_png
from defectrt.training.data.dataset import read_defects
from defectrt.training.data.layouts import GOOD
from defectrt.training.data.samples import Sample
from defectrt.training.proving.workpieces import halves, workpieces

#: Files of one tile have numbers less than this apart.
TILES = ("auto", r"num_(\d+)"), 200
#: The seed of the division.
SEED = 7


def write_folds(
    samples: Sequence[Sample],
    out: Path,
    *,
    shots: int = 5,
    good: int = 100,
    groups: tuple[Sequence[str], int | None] = TILES,
) -> None:
    """Divide ``samples`` and write both folds, ``good`` good pictures a side at most."""
    pieces, types = workpieces(samples, *groups), [sample.defect_type for sample in samples]
    sides = halves(types, pieces, np.random.default_rng(SEED))
    for fold, (train, test) in enumerate((sides, sides[::-1])):
        rng = np.random.default_rng([SEED, fold])
        for name in sorted({*types}):
            learned, tested = ([i for i in side if types[i] == name] for side in (train, test))
            if name == GOOD:
                learned, tested = (rng.permutation(s)[:good].tolist() for s in (learned, tested))
            else:
                write_samples([samples[i] for i in learned], out / str(fold) / "all" / name)
                learned = _over_workpieces(rng.permutation(learned).tolist(), pieces)[:shots]
            here = GOOD if name == GOOD else f"shots/{name}"
            write_samples([samples[i] for i in learned], out / str(fold) / here)
            write_samples([samples[i] for i in tested], out / str(fold) / "test" / name)


def _over_workpieces(order: Sequence[int], pieces: Sequence[int]) -> list[int]:
    """One of every workpiece, then a second of each, and so on."""
    own: dict[int, list[int]] = defaultdict(list)
    for i in order:
        own[pieces[i]].append(i)
    return [i for i in chain(*zip_longest(*own.values())) if i is not None]


def write_samples(samples: Sequence[Sample], folder: Path) -> None:
    """Write each picture as NAME.png, and where it shows a defect NAME_mask.png beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    for sample in samples:
        write_whole(folder / f"{sample.path.stem}.png", encode_png(sample.image))
        if sample.mask.any():
            mask = (sample.mask * np.uint8(255))[..., None]
            write_whole(folder / f"{sample.path.stem}_mask.png", encode_png(mask))


def main() -> None:
    """Read the command line and write the folds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--types", default="blowhole,crack")
    parser.add_argument("--shots", type=int, default=5)
    options = parser.parse_args()
    found = read_defects(options.dataset, None)
    wanted = {*options.types.split(","), GOOD}
    items = [item for item in found.items if item.defect_type in wanted]
    if lacking := wanted - {item.defect_type for item in items}:
        parser.error(f"{options.dataset}: shows no {', '.join(sorted(lacking))}")
    samples = found.read(items)
    write_folds(samples, options.out, shots=options.shots)


if __name__ == "__main__":
    main()
