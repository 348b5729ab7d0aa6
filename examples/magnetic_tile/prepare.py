"""Split the magnetic-tile dataset by tile, and place held-out masks on held-out good tiles.

    python prepare.py DATASET OUT

DATASET holds MT_Blowhole, MT_Crack, MT_Free … as published (Huang et al., "Surface defect
saliency of magnetic tile"). Each tile was photographed under up to six exposures, with file
numbers close together, so pictures are split by tile and not one by one: a picture of the same
tile in training would make any test look better than it is. OUT gets

    train/good train/<kind>        pictures (and masks) to train on
    test/good  test/<kind>         pictures of other tiles
    masks/<kind>/<name>_mask.png   for every picture in test/good, a mask of a test/<kind> defect,
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

KINDS = ("Blowhole", "Crack", "Break", "Fray")
#: Pictures of one tile have file numbers that differ by less than this.
SAME_TILE = 200
#: Darker than this is not tile but the gap around it.
TILE = 40


def tiles(pictures: list[Path]) -> list[list[Path]]:
    """Group pictures that show the same tile."""
    numbered = sorted((int(re.search(r"num_(\d+)", p.name)[1]), p) for p in pictures)
    groups = [[numbered[0][1]]]
    for (before, _), (number, picture) in pairwise(numbered):
        if number - before >= SAME_TILE:
            groups.append([])
        groups[-1].append(picture)
    return groups


def split(pictures: list[Path], held_out: float, rng: np.random.Generator) -> tuple[list, list]:
    """Train and test pictures; whole tiles go to one side."""
    groups = tiles(pictures)
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
    for kind in KINDS:
        pictures = sorted((args.dataset / f"MT_{kind}" / "Imgs").glob("*.jpg"))
        if not pictures:
            raise SystemExit(f"{args.dataset}: holds no MT_{kind}/Imgs; is it the dataset?")
        for side, chosen in zip(
            ("train", "test"), split(pictures, args.held_out, rng), strict=True
        ):
            folder = args.out / side / kind.lower()
            folder.mkdir(parents=True, exist_ok=True)
            for picture in chosen:
                shutil.copy(picture, folder)
                mask = np.asarray(Image.open(picture.with_suffix(".png")).convert("L")) > 127
                Image.fromarray(mask).save(folder / f"{picture.stem}_mask.png")
                if side == "test":
                    masks.setdefault(kind.lower(), []).append(mask)
    good = sorted((args.dataset / "MT_Free" / "Imgs").glob("*.jpg"))
    train, test = split(good, args.held_out, rng)
    # one exposure of a tile is enough to look at
    test = [group[rng.integers(len(group))] for group in tiles(test)][: args.good]
    for side, chosen in (("train", train), ("test", test)):
        folder = args.out / side / "good"
        folder.mkdir(parents=True, exist_ok=True)
        for picture in chosen:
            shutil.copy(picture, folder)
    for kind, bank in masks.items():
        folder = args.out / "masks" / kind
        folder.mkdir(parents=True, exist_ok=True)
        for picture in test:
            tile = np.asarray(Image.open(picture).convert("L")) > TILE
            choices = (place(bank[rng.integers(len(bank))], tile, rng) for _ in range(50))
            mask = next((m for m in choices if m is not None), None)
            if mask is None:
                print(f"{picture.name}: no place for a {kind}")
                continue
            Image.fromarray(mask).save(folder / f"{picture.stem}_mask.png")


if __name__ == "__main__":
    main()
