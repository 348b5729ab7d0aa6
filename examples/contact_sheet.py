"""Show a dataset made by ``defectrt synthesize`` as one image, around each defect.

    python contact_sheet.py OUT SHEET.png [--first 16] [--columns 2] [--context 24]

Each entry: the good image, the result, the label.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image


def panel(path: Path, box: tuple[int, int, int, int], side: int, smooth: bool) -> Image.Image:
    """A part of an image, as 8-bit RGB, ``side`` px wide."""
    image = Image.open(path, formats=["PNG"])
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    method = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
    return image.convert("RGB").crop(box).resize((side, side), method)


def main() -> None:
    """Read the command line and write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("sheet", type=Path)
    parser.add_argument("--first", type=int, default=16)
    parser.add_argument("--columns", type=int, default=2)
    parser.add_argument("--context", type=int, default=24, help="px around the window")
    parser.add_argument("--side", type=int, default=224, help="px a panel")
    args = parser.parse_args()
    lines = (args.out / "manifest.jsonl").read_text().splitlines()[: args.first]
    records = [json.loads(line) for line in lines]
    step, gap = args.side + 2, 10
    rows = -(-len(records) // args.columns)
    size = args.columns * (3 * step + gap) - gap
    sheet = Image.new("RGB", (size, rows * (step + gap) - gap), "white")
    for i, r in enumerate(records):
        w = r["tiles"][0]["window"]  # of a defect in several pieces, the first
        reach = w["side"] // 2 + args.context
        good = args.out / r["good"]
        width, height = Image.open(good, formats=["PNG"]).size
        x = max(reach, min(w["x"] + w["side"] // 2, width - reach))
        y = max(reach, min(w["y"] + w["side"] // 2, height - reach))
        box = (x - reach, y - reach, x + reach, y + reach)
        column, row = i % args.columns, i // args.columns
        for j, path in enumerate((good, args.out / r["image"], args.out / r["label"])):
            place = (column * (3 * step + gap) + j * step, row * (step + gap))
            sheet.paste(panel(path, box, args.side, smooth=j < 2), place)
    sheet.save(args.sheet)


if __name__ == "__main__":
    main()
