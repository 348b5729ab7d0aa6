"""Are made logical anomalies what they should be? Trays are drawn, learned from, and counted.

    python benchmarks/tray.py draw trays
    defectrt learn trays/loco --layout loco-classes --out engines/tray
    defectrt synthesize --images trays/fresh --engine engines/tray --count 3 --out made
    python benchmarks/tray.py count made
    python benchmarks/tray.py show made logical.png

The counter knows nothing of the model: it says what lies in every compartment, and is exact on
drawn trays (tests/project/test_tray.py). A sample is right where the compartments of its mask hold
what its type says and all others what they should; its label has to lie in those and in no other.
``count`` writes a line of JSON a type; ``show`` draws a mask on its good tray beside a label on the
made one.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np

from defectrt.images.png import encode_png
from defectrt.images.reading import read_image
from defectrt.output.records import FinishedDataset, KeptSample, read_finished
from defectrt.training.surfaces.tray import ANOMALIES, LAYOUT, compartment, draw_tray

#: Examples a type, good trays to learn from, good trays to paint on; value of each type in masks.
SHOTS, GOOD, FRESH = 5, 20, 40
VALUES = dict(zip(ANOMALIES, (255, 254, 253), strict=True))
#: Brightness over the floor's from which a px is metal; most of it that an empty compartment shows.
METAL, EMPTY = 1.5, 0.01
#: Px of metal of either part; red over blue from which it is brass; likeness to a drawn part.
AREA, BRASS, ALIKE = (950, 1650), 1.5, 0.8
#: Rows of a picture, and how much smaller its images are.
ROWS, SMALLER = 3, 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("draw", "count", "show"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("picture", type=Path, nargs="?", default=Path("logical.png"))
    options = parser.parse_args()
    if options.what == "draw":
        draw(options.folder)
        return
    dataset = read_finished(options.folder)
    if options.what == "show":
        options.picture.write_bytes(encode_png(show(dataset)))
        return
    for name in sorted({entry.defect for entry in dataset.entries}):
        own = [entry for entry in dataset.entries if entry.defect == name]
        found = Counter(verdict(dataset, entry) for entry in own)
        dropped = sum(record.get("defect") == name for record in dataset.dropped)
        print(json.dumps({"type": name, "made": len(own), "dropped": dropped, **found}))


def draw(
    folder: Path, *, shots: int | None = None, good: int | None = None, fresh: int | None = None
) -> None:
    """OUT/loco, in MVTec LOCO's layout, and good trays in OUT/fresh.

    By default `SHOTS` of each type, `GOOD` good ones and `FRESH` others; no two trays are alike.
    """
    shots, good, fresh = (
        default if wanted is None else wanted
        for wanted, default in ((shots, SHOTS), (good, GOOD), (fresh, FRESH))
    )
    for i in range(good):
        _write(folder / "loco/train/good" / f"{i:03}.png", draw_tray(i).image)
    for i in range(fresh):
        _write(folder / "fresh" / f"{i:03}.png", draw_tray(10_000 + i).image)
    of = [anomaly for anomaly in ANOMALIES for _ in range(shots)]
    for i, anomaly in enumerate(of):
        tray = draw_tray(1000 + i, anomaly)
        _write(folder / "loco/test/logical_anomalies" / f"{i:03}.png", tray.image)
        truth = folder / "loco/ground_truth/logical_anomalies" / f"{i:03}"
        for n, cell in enumerate(_cells(tray.mask)):
            mask = np.zeros(tray.mask.shape, np.uint8)
            mask[compartment(cell)] = VALUES[anomaly]
            _write(truth / f"{n:03}.png", mask)
    classes = [
        {"defect_name": name, "pixel_value": value, "saturation_threshold": 1.0}
        | {"relative_saturation": True}
        for name, value in VALUES.items()
    ]
    (folder / "loco/defects_config.json").write_text(json.dumps(classes))


def count(image: np.ndarray) -> tuple[str, ...]:
    """What lies in every compartment of a tray [H,W,3]: N, W, nothing (.), or what is none (?)."""
    floor = np.median(np.concatenate([_cell(image, c).reshape(-1, 3) for c in _all()]), axis=0)
    return tuple(
        "".join(_part(_cell(image, (y, x)), float(floor.mean())) for x in range(len(row)))
        for y, row in enumerate(LAYOUT)
    )


def _part(cell: np.ndarray, floor: float) -> str:
    colour = cell.astype(np.float32)
    light = colour.mean(axis=2)
    metal = light > METAL * floor
    if metal.mean() < EMPTY:
        return "."
    if not AREA[0] <= metal.sum() <= AREA[1]:
        return "?"
    red, _, blue = colour[metal].mean(axis=0)
    part = "W" if red > BRASS * blue else "N"
    likeness = max(
        float(cv2.matchTemplate(light, like, cv2.TM_CCOEFF_NORMED).max())
        for like in _TEMPLATES[part]
    )
    return part if likeness >= ALIKE else "?"


def expected(anomaly: str, cells: list[tuple[int, int]]) -> set[tuple[str, ...]]:
    """What a tray may hold that is wrong in just these compartments."""
    kinds = {
        "missing": [["."] for _ in cells],
        "extra": [["N", "W"] for _ in cells],
        "swapped": [["NW"[LAYOUT[y][x] == "N"]] for y, x in cells],
    }[anomaly]
    found = {LAYOUT}
    for (y, x), kind in zip(cells, kinds, strict=True):
        found = {
            (*rows[:y], rows[y][:x] + part + rows[y][x + 1 :], *rows[y + 1 :])
            for rows in found
            for part in kind
        }
    return found


def verdict(dataset: FinishedDataset, entry: KeptSample) -> str:
    """``right``, or what is wrong with a sample."""
    image, label, mask = _pictures(dataset, entry)
    asked, parts = _cells(mask), count(image)
    if parts == LAYOUT:
        return "unchanged"
    if any(parts[y][x] != LAYOUT[y][x] for y, x in set(_all()) - set(asked)):
        return "changed elsewhere"
    if any(parts[y][x] == "?" for y, x in asked):
        return "no part"
    if parts not in expected(entry.defect, asked):
        return "another anomaly"
    return "right" if _cells(label) == asked else "label elsewhere"


def show(dataset: FinishedDataset) -> np.ndarray:
    """A mask on its good tray and a label on the made one, a sample a row, the types in columns."""
    columns = []
    for name in sorted({entry.defect for entry in dataset.entries}):
        rows = []
        for entry in [e for e in dataset.entries if e.defect == name][:ROWS]:
            image, label, mask = _pictures(dataset, entry)
            good = read_image(dataset.out / entry.good)
            marked = good.copy()
            marked[mask] = marked[mask] // 2 + np.array([0, 60, 110], np.uint8)
            outlined = image.copy()
            edge = label & ~(cv2.erode(label.astype(np.uint8), np.ones((3, 3))) > 0)
            outlined[edge] = (255, 40, 40)
            rows.append(np.hstack([marked, outlined]))
        columns.append(np.vstack(rows))
    sheet = np.hstack(columns)
    height, width = (side // SMALLER for side in sheet.shape[:2])
    return cv2.resize(sheet, (width, height), interpolation=cv2.INTER_AREA)


def _pictures(
    dataset: FinishedDataset, entry: KeptSample
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    image, label, mask = (
        read_image(dataset.out / path) for path in (entry.image, entry.label, str(entry.mask))
    )
    return image, label[..., 0] > 0, mask[..., 0] > 0


def _all() -> list[tuple[int, int]]:
    return [(y, x) for y, row in enumerate(LAYOUT) for x in range(len(row))]


def _cells(mask: np.ndarray) -> list[tuple[int, int]]:
    return [cell for cell in _all() if mask[compartment(cell)].any()]


def _cell(image: np.ndarray, cell: tuple[int, int]) -> np.ndarray:
    return image[compartment(cell)]


def _templates() -> dict[str, list[np.ndarray]]:
    """The parts of some drawn trays, by kind."""
    found: dict[str, list[np.ndarray]] = {"N": [], "W": []}
    for seed in range(3):
        tray = draw_tray(5000 + seed)
        for y, x in _all():
            if (part := tray.parts[y][x]) != ".":
                light = _cell(tray.image, (y, x)).astype(np.float32).mean(axis=2)
                found[part].append(np.ascontiguousarray(light[8:-8, 8:-8]))
    return found


_TEMPLATES = _templates()


def _write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_png(image))


if __name__ == "__main__":
    main()
