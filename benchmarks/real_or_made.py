"""Can a classifier tell made defects from real ones? Near 50 % it cannot.

    python benchmarks/real_or_made.py REAL MADE [MADE …] [--types crack,hole] [--side 48]

REAL and each MADE are datasets with masks, in any layout that `defectrt data inspect` knows, or
outputs of `synthesize`. Each defect is seen in a window around its middle, without its mask, at the
image's own scale and relative to its surroundings. As many made ones as real ones are drawn, the
classifier (a logistic regression on gradients, profiles and amplitudes of frequencies) is tested on
folds that it has not seen, and all is done again with other draws. One line of JSON a set and type:
the share of right guesses over the draws, 10th / 50th / 90th percentile.
The first line sets one half of the real ones against the other: what chance looks like. ``beside``
is the same for windows beside the defects: what the images alone give away.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from defectrt.images.contrast import grey
from defectrt.images.window import Window
from defectrt.training.data.samples import Sample
from defectrt.training.proving.material import read_made

#: Draws of made ones, folds of each, strength of the ridge, Newton's steps.
DRAWS, FOLDS, RIDGE, NEWTON = 20, 5, 10.0, 12


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
            np.array([_features(sample, side) for sample in of_type]),
            np.array([_features(sample, side, aside=True) for sample in of_type]),
        )
        for name, of_type in own.items()
    }


def _features(sample: Sample, side: int, *, aside: bool = False) -> np.ndarray:
    """What a window around a defect looks like, relative to its border; or one beside it."""
    ys, xs = np.nonzero(sample.mask)
    y, x = (int(ys.min() + ys.max()) - side) // 2, (int(xs.min() + xs.max()) - side) // 2
    if aside:
        above, reach = y + side / 2 > sample.mask.shape[0] / 2, side // 2 + int(np.ptp(ys)) // 2 + 4
        y = min(max(0, y + (-reach if above else reach)), max(0, sample.mask.shape[0] - side))
    seen = Window(y, x, side).crop(grey(sample.image))
    border = np.median([*seen[:4], *seen[-4:], *seen[:, :4].T, *seen[:, -4:].T])
    level = (seen - border) / max(float(border), 1e-3)
    return np.concatenate(list(_parts(level.astype(np.float32))))


def _parts(level: np.ndarray) -> Iterator[np.ndarray]:
    """Percentiles, a radial profile, gradients at three scales, the spectrum by radius."""
    side = len(level)
    yield np.percentile(level, (0, 1, 2, 5, 10, 25, 50, 75, 90, 95, 99, 100))
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    ring = (np.hypot(y, x) / (side / 16)).astype(int).clip(max=7)
    for statistic in (np.mean, np.std):
        yield np.array([statistic(level[ring == i]) for i in range(8)])
    for sigma in (0.0, 1.0, 2.0):
        smooth = cv2.GaussianBlur(level, (0, 0), sigma) if sigma else level
        slope = np.hypot(cv2.Sobel(smooth, -1, 1, 0), cv2.Sobel(smooth, -1, 0, 1)) / 8
        yield np.percentile(slope, (10, 25, 50, 75, 90, 95, 99, 100))
    fading = np.outer(np.hanning(side), np.hanning(side))
    wave = np.log(np.abs(np.fft.fftshift(np.fft.fft2(level * fading))) + 1e-3)
    yield np.array([wave[ring == i].mean() for i in range(8)])


def _tell(what: str, name: str, real: np.ndarray, made: np.ndarray) -> None:
    rng, shares = np.random.default_rng(0), []
    count = min(len(real), len(made))
    for _ in range(DRAWS):
        ours = real[rng.permutation(len(real))[:count]]
        theirs = made[rng.permutation(len(made))[:count]]
        x = np.concatenate([ours, theirs])
        y = np.repeat([0.0, 1.0], count)
        shares.append(_folds(x, y, rng.permutation(2 * count) % FOLDS))
    low, middle, high = np.percentile(shares, (10, 50, 90)).round(3).tolist()
    print(json.dumps({"made": what, "type": name, "each": count, "right": [low, middle, high]}))


def _folds(x: np.ndarray, y: np.ndarray, fold: np.ndarray) -> float:
    """Share of right guesses on folds that were not learned from."""
    right = []
    for i in range(FOLDS):
        learn, test = fold != i, fold == i
        mean, spread = x[learn].mean(axis=0), x[learn].std(axis=0) + 1e-6
        weights = _fit(_bent((x[learn] - mean) / spread), y[learn])
        right.append((_bent((x[test] - mean) / spread) @ weights > 0) == (y[test] > 0.5))
    return float(np.concatenate(right).mean())


def _bent(x: np.ndarray) -> np.ndarray:
    """With squares, so that too much and too little of something can both give it away."""
    x = x.clip(-3, 3)
    return np.concatenate([np.ones((len(x), 1)), x, x**2 - 1], axis=1)


def _fit(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Logistic regression with a ridge, by Newton's method."""
    weights = np.zeros(x.shape[1])
    for _ in range(NEWTON):
        p = 1 / (1 + np.exp(-(x @ weights).clip(-30, 30)))
        hessian = (x * (p * (1 - p))[:, None]).T @ x + RIDGE * np.eye(len(weights))
        weights -= np.linalg.solve(hessian, x.T @ (p - y) + RIDGE * weights)
    return weights


if __name__ == "__main__":
    main()
