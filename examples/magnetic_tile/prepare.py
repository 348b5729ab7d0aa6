"""Split the magnetic-tile dataset by tile, and place held-out masks on held-out good tiles.

    python prepare.py DATASET OUT

DATASET holds MT_Blowhole, MT_Crack, MT_Free … as published (Huang et al., "Surface defect
saliency of magnetic tile"). Each tile was photographed under up to six exposures, with file
numbers close together, so images are split by tile and not one by one: an image of the same
tile in training would make any test look better than it is. OUT gets

    train/good train/<type>        images (and masks) to train on
    test/good  test/<type>         images of other tiles
    masks/<type>/<name>_mask.png   for every image in test/good, a mask of a test/<type> defect,
                                   mirrored at random and moved to a random place on the tile
"""

from __future__ import annotations

import argparse
import re
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from defectrt.images.reading import read_image
from defectrt.masks.reading import read_any_mask

DEFECT_TYPES = ("Blowhole", "Crack", "Break", "Fray")
#: Images of one tile have file numbers that differ by less than this.
SAME_TILE = 200
#: Darker than this is not tile but the gap around it.
TILE = 40


def tiles(images: list[Path]) -> list[list[Path]]:
    """Group images that show the same tile."""
    numbered = sorted((int(re.search(r"num_(\d+)", p.name)[1]), p) for p in images)
    groups = [[numbered[0][1]]]
    for (before, _), (number, image) in pairwise(numbered):
        if number - before >= SAME_TILE:
            groups.append([])
        groups[-1].append(image)
    return groups


def split(images: list[Path], held_out: float, rng: np.random.Generator) -> tuple[list, list]:
    """Train and test images; whole tiles go to one side."""
    groups = tiles(images)
    order = rng.permutation(len(groups))
    test = set(order[: round(held_out * len(groups))].tolist())
    side = [[p for i, g in enumerate(groups) if (i in test) == t for p in g] for t in (False, True)]
    return side[0], side[1]


def place(mask: np.ndarray, tile: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """Move a mask to a random place wholly on the tile, or None if none was found."""
    ys, xs = np.nonzero(mask)
    shape = mask[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
    shape = np.flip(shape, [axis for axis in (0, 1) if rng.random() < 0.5])
    limit = np.array(tile.shape) - shape.shape
    if (limit < 0).any():
        return None
    for _ in range(100):
        y, x = rng.integers(limit + 1)
        view = np.s_[y : y + shape.shape[0], x : x + shape.shape[1]]
        if tile[view][shape].all():
            out = np.zeros(tile.shape, bool)
            out[view] = shape
            return out
    return None


def main() -> None:
    """Read the command line and write the folders."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--held-out", type=float, default=0.3, help="share of the tiles")
    parser.add_argument("--good", type=int, default=24, help="held-out good tiles to use")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    masks: dict[str, list[np.ndarray]] = {}
    for defect_type in DEFECT_TYPES:
        images = sorted((args.dataset / f"MT_{defect_type}" / "Imgs").glob("*.jpg"))
        if not images:
            raise SystemExit(f"{args.dataset}: holds no MT_{defect_type}/Imgs; is it the dataset?")
        for side, chosen in zip(("train", "test"), split(images, args.held_out, rng), strict=True):
            folder = args.out / side / defect_type.lower()
            folder.mkdir(parents=True, exist_ok=True)
            for image in chosen:
                shutil.copy(image, folder)
                mask = read_any_mask(image.with_suffix(".png"))
                Image.fromarray(mask).save(folder / f"{image.stem}_mask.png")
                if side == "test":
                    masks.setdefault(defect_type.lower(), []).append(mask)
    good = sorted((args.dataset / "MT_Free" / "Imgs").glob("*.jpg"))
    train, test = split(good, args.held_out, rng)
    # one exposure of a tile is enough to look at
    test = [group[rng.integers(len(group))] for group in tiles(test)][: args.good]
    for side, chosen in (("train", train), ("test", test)):
        folder = args.out / side / "good"
        folder.mkdir(parents=True, exist_ok=True)
        for image in chosen:
            shutil.copy(image, folder)
    for defect_type, bank in masks.items():
        folder = args.out / "masks" / defect_type
        folder.mkdir(parents=True, exist_ok=True)
        for image in test:
            tile = read_image(image)[..., 0] > TILE
            choices = (place(bank[rng.integers(len(bank))], tile, rng) for _ in range(50))
            mask = next((m for m in choices if m is not None), None)
            if mask is None:
                print(f"{image.name}: no place for a {defect_type}")
                continue
            Image.fromarray(mask).save(folder / f"{image.stem}_mask.png")


if __name__ == "__main__":
    main()
