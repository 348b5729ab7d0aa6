"""Write tests/filters.txt: what OpenCV makes of small images, for the C++ tests.

Every line is ``OPERATION HEIGHT WIDTH CHANNELS ARGUMENTS… : RESULT…``. The input is not stored: its
value ``i`` is ``7919 i + 104729 mod 1009``, over 1009; a mask is where that is under a share. Sizes
are odd and even, down to a single pixel, and borders are reached from every side.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from defectrt.masks.pieces import pieces

VECTORS = Path(__file__).parent / "filters.txt"


def image(height, width, channels=1):
    i = np.arange(height * width * channels, dtype=np.int64)
    values = ((i * 7919 + 104729) % 1009).astype(np.float32) / np.float32(1009)
    return values.reshape((height, width, channels) if channels > 1 else (height, width))


def mask(height, width, share):
    return image(height, width) < np.float32(share)


def resized():
    for name, method, sizes in (
        ("resize", cv2.INTER_AREA, [(20, 7, 3), (33, 32, 1), (24, 23, 1), (97, 13, 1), (2, 1, 3)]),
        ("resize", cv2.INTER_AREA, [(16, 8, 1), (5, 1, 1), (9, 2, 1), (40, 39, 1)]),
        ("resize", cv2.INTER_CUBIC, [(1, 5, 1), (2, 3, 3), (7, 20, 1), (23, 24, 1), (8, 16, 1)]),
    ):
        for side, size, channels in sizes:
            out = cv2.resize(image(side, side, channels), (size, size), interpolation=method)
            yield name, (side, side, channels, size), out
    for size, (height, width) in {
        (8, 8): (33, 21),
        (1, 1): (4, 3),
        (16, 16): (5, 7),
        (3, 5): (16, 15),
        (7, 2): (8, 9),
    }.items():
        out = cv2.resize(image(*size), (width, height), interpolation=cv2.INTER_LINEAR)
        yield "linear", (*size, 1, height, width), out


def blurred():
    sizes = ((1, 1), (1, 7), (2, 2), (3, 5), (13, 10))
    for size, sigma in [(s, d) for s in sizes for d in (0.3, 1, 1.7)] + [((9, 30), 6.25)]:
        yield "blur", (*size, 1, sigma), cv2.GaussianBlur(image(*size), (0, 0), sigma)


def of_masks():
    for (height, width), share in {
        (1, 1): 1,
        (1, 9): 0.2,
        (9, 1): 0.2,
        (13, 17): 0.02,
        (40, 3): 0.05,
        (20, 21): 0.3,
    }.items():
        given = mask(height, width, share)
        out = cv2.distanceTransform(1 - given.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        yield "distance", (height, width, 1, share), out
    for (height, width), share, least in (
        ((1, 1), 1, 2),
        ((1, 20), 0.5, 2),
        ((12, 15), 0.3, 3),
        ((15, 11), 0.4, 7),
    ):
        given = mask(height, width, share)
        _, labels, stats, _ = cv2.connectedComponentsWithStats(given.astype(np.uint8))
        keep = stats[:, cv2.CC_STAT_AREA] >= least
        keep[0] = False
        yield "specks", (height, width, 1, share, least), keep[labels].astype(int)
    for (height, width), share, gap in (
        ((1, 1), 1, 5),
        ((40, 50), 0.01, 4),
        ((61, 33), 0.02, 3),
        ((100, 90), 0.003, 7),
    ):
        found = pieces(mask(height, width, share), gap)
        rows = [[*p.corner, *p.shape.shape, p.shape.sum()] for p in found]
        yield "pieces", (height, width, 1, share, gap), np.array(rows)


def text():
    lines = []
    for operations in (resized(), blurred(), of_masks()):
        for name, given, out in operations:
            values = " ".join(f"{v:.6g}" for v in np.asarray(out).reshape(-1))
            lines.append(" ".join([name, *(f"{g:g}" for g in given), ":", values]))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    VECTORS.write_text(text(), encoding="utf-8")
