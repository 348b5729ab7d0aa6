"""What an engine paints, told from what it paints healthy: acceptance, variety, loose masks, maps.

    python benchmarks/painted.py [--engine ENGINE] [--good DIR] [--masks N] [--threads 1]

On each family of drawn surfaces, and on pictures of DIR if given, each type is painted under N
masks of its own, and with the same noise under each of them healthy: by the background's prompt.
The difference of these twins is what the prompt put there: the truth that a label and an attention
map (Eq. 13) are held to, where it is 6 % of the range or more. One line of JSON a type:

    kept, healthy_refused  shares that acceptance keeps and refuses, one try each
    variety                mean difference of two seeds under the mask over the own change
    box_over_10, _25       share of a loose box of 44 px that changes by more than 10, 25 %
    auc_map, auc_change    area under the ROC curve against the truth, in the loose box
    iou_*                  intersection over union of label and truth in the box, by --refine
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from defectrt.config.synthesis import SynthesisConfig
from defectrt.diffusion.noise import normal
from defectrt.diffusion.rows import Prompts
from defectrt.diffusion.sampler import generate, noised, run
from defectrt.engines.loading import BUNDLED_ENGINE, load_engine
from defectrt.images.folder import find_images
from defectrt.images.reading import read_image
from defectrt.images.types import channel_max
from defectrt.images.window import Window, from_model, to_model
from defectrt.masks.placement import paste
from defectrt.masks.resizing import latent_mask
from defectrt.masks.shapes import draw_shape
from defectrt.synthesis.acceptance import unseen
from defectrt.synthesis.refinement import appeared, attention_witness, refine
from defectrt.training.surfaces.families import FAMILIES
from defectrt.training.surfaces.generator import draw

#: Of the drawn surfaces; training drew its own from 0 on.
SEED = 7_000_000
#: Side of the loose box in px, and the difference of twins that is a defect.
BOX, TRUE = 44, 0.06
REFINES = ("attention", "change", "both")


class Painter:
    """An engine that paints one window at a time, and its acceptance."""

    def __init__(self, engine) -> None:
        self.engine, self.manifest = engine, engine.manifest
        self.side, self.schedule = self.manifest.window, self.manifest.steps()
        self.config = SynthesisConfig()

    def __call__(self, image, mask, defect, seed, *, healthy=False):
        """(before, after) [S,S,3] in [0,1] and the attention map [r,r]."""
        size = self.manifest.image.height
        z0 = self.engine.encode(to_model(image, size)[None])
        region = latent_mask(mask, *z0.shape[2:])[None]
        noise = normal(seed, 0, 0, z0.shape)
        indices = self.manifest.prompt_indices(defect)
        inside = indices.background if healthy else indices.defect
        prompts = Prompts(*(np.full(1, i, np.int64) for i in (inside, *indices[1:])))
        path = noised(z0, region, noise, self.schedule)
        made = run(self.engine.step, generate(path, region, noise, prompts, self.schedule))
        before, after = (self.engine.decode(z)[0] for z in (z0, made.latent))
        return from_model(before, self.side), from_model(after, self.side), made.attention[0, 0]

    def keeps(self, mask, before, after) -> bool:
        shown = appeared(mask, before, after, self.config)
        return unseen(self.config, shown.sum() / mask.sum()) is None


def measured(paint: Painter, image, defect: str, seed: int) -> dict[str, float]:
    """The figures of one mask on one window."""
    rng = np.random.default_rng([seed, 1])
    shape = draw_shape(defect, paint.side, rng)
    room = np.maximum(paint.side - np.array(shape.shape) - 8, 1)
    mask = paste(shape, tuple(4 + rng.integers(room)), (paint.side,) * 2)
    before, after, _ = paint(image, mask, defect, seed)
    _, other, _ = paint(image, mask, defect, seed + 1)
    _, healthy, _ = paint(image, mask, defect, seed, healthy=True)
    own = np.abs(after - before)[mask].mean()
    found = {
        "kept": paint.keeps(mask, before, after),
        "healthy_refused": not paint.keeps(mask, before, healthy),
        "variety": np.abs(after - other)[mask].mean() / own,
    }
    return found | in_box(paint, image, defect, seed)


def in_box(paint: Painter, image, defect: str, seed: int) -> dict[str, float]:
    """The figures of a loose box in the middle of the window."""
    low = (paint.side - BOX) // 2
    box = np.zeros((paint.side,) * 2, bool)
    box[low : low + BOX, low : low + BOX] = True
    before, after, attention = paint(image, box, defect, seed)
    _, healthy, _ = paint(image, box, defect, seed, healthy=True)
    truth, change = (channel_max(np.abs(after - o)) for o in (healthy, before))
    found = {f"box_over_{p}": (change[box] > p / 100).mean() for p in (10, 25)}
    true = box & (truth >= TRUE)
    if 0 < true.sum() < box.sum():
        shown = appeared(box, before, after, paint.config)
        resized = attention_levels(box, attention)
        found |= {
            "auc_map": auc(resized[box], true[box]),
            "auc_change": auc(change[box], true[box]),
        }
        for kind in REFINES:
            label = refine(box, attention, shown, paint.config.model_copy(update={"refine": kind}))
            found[f"iou_{kind}"] = (label & true).sum() / (label | true).sum()
    return found


def attention_levels(mask, attention) -> np.ndarray:
    """How many of 50 thresholds of Eq. 13 each px passes."""
    return np.sum([attention_witness(mask, attention, t / 50) for t in range(50)], axis=0)


def auc(values, true) -> float:
    """Area under the ROC curve, by ranks; ties count half."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    positive = true.sum()
    return float((ranks[true].sum() - positive * (positive + 1) / 2) / positive / (~true).sum())


def drawn(side: int, each: int) -> Iterator[tuple[str, np.ndarray]]:
    """Windows of drawn surfaces."""
    for family in sorted(FAMILIES):
        for k in range(each):
            image, _ = draw(SEED + k, family, 144)
            low = (144 - side) // 2
            yield "drawn", image[low : low + side, low : low + side]


def photographed(folder: Path, side: int, most: int) -> Iterator[tuple[str, np.ndarray]]:
    """Windows from the middle of pictures, evenly chosen."""
    paths = find_images(folder)
    for path in paths[:: max(1, len(paths) // most)][:most]:
        image = read_image(path)
        y, x = ((size - side) // 2 for size in image.shape[:2])
        yield folder.name, Window(y, x, side).crop(image)


def mean(rows: Sequence[dict[str, float]]) -> dict[str, float | int]:
    names = dict.fromkeys(name for row in rows for name in row)
    return {"n": len(rows)} | {
        name: round(float(np.mean([row[name] for row in rows if name in row])), 3) for name in names
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", type=Path, default=BUNDLED_ENGINE)
    parser.add_argument("--good", type=Path)
    parser.add_argument("--masks", type=int, default=1)
    parser.add_argument("--most", type=int, default=14, help="pictures of DIR")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    with load_engine(options.engine, threads=options.threads) as engine:
        paint = Painter(engine)
        windows = list(drawn(paint.side, options.masks))
        if options.good:
            windows += photographed(options.good, paint.side, options.most)
        found = defaultdict(list)
        for number, (where, window) in enumerate(windows):
            for defect in engine.manifest.defect_types:
                row = measured(paint, window, defect, 1000 * number)
                found[where, defect].append(row)
                found[where, "all"].append(row)
            print(f"{number + 1} of {len(windows)} windows", file=sys.stderr)
    for (where, defect), rows in found.items():
        print(json.dumps({"on": where, "type": defect, **mean(rows)}))


if __name__ == "__main__":
    main()
