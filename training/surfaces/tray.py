"""A tray with parts, photographed: nuts, washers and compartments that stay empty.

What can be wrong with it is logical: a part is missing, there is one too many, or two are swapped.
Every px of such a picture may be seen in a good one; what lies where is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["ANOMALIES", "CELL", "LAYOUT", "Anomaly", "Tray", "compartment", "draw_tray"]

Anomaly: TypeAlias = Literal["missing", "extra", "swapped"]
Cell: TypeAlias = tuple[int, int]
Colour: TypeAlias = tuple[float, float, float]

ANOMALIES: tuple[Anomaly, ...] = ("missing", "extra", "swapped")
#: What belongs where, a letter a compartment: a nut, a washer, nothing.
LAYOUT = ("NW.N", "W.NW", "NNW.")
#: Side of a compartment with half of its walls, and width of a wall, px.
CELL, _WALL = 80, 8
#: Radius of a part and of its hole, px; how far from the middle it may lie.
_PART, _HOLE, _AWAY = 24.0, {"N": 9.0, "W": 12.0}, 4.0
_FLOOR, _WALLS = (0.22, 0.25, 0.31), (0.38, 0.41, 0.46)
_METAL: dict[str, Colour] = {"N": (0.74, 0.76, 0.78), "W": (0.85, 0.66, 0.30)}
#: Samples a px, each way, of what is drawn.
_FINE = 4
#: Standard deviation of the noise and of the lens's blur; how much the light varies, each way.
_NOISE, _BLUR, _LIGHT = 0.015, 0.8, 0.1


@dataclass(frozen=True)
class Tray:
    """A picture [240,320,3] uint8, where it is wrong [240,320], and what lies in it as `LAYOUT`."""

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    parts: tuple[str, ...]


def draw_tray(seed: int, anomaly: Anomaly | None = None) -> Tray:
    """A tray; the same seed is the same photograph, good or with an anomaly.

    The mask is all of the compartments in which something is wrong.
    """
    rng, choice = np.random.default_rng(seed), np.random.default_rng([seed, 1])
    parts, wrong = _wrong(anomaly, choice) if anomaly else (LAYOUT, [])
    height, width = len(LAYOUT) * CELL, len(LAYOUT[0]) * CELL
    fine = np.empty((height * _FINE, width * _FINE, 3), np.float32)
    fine[:] = _WALLS
    for y, row in enumerate(parts):
        for x, part in enumerate(row):
            fine[compartment((y, x), _FINE)] = _FLOOR
            _put(fine, (y, x), part, rng)
    mask = np.zeros((height, width), bool)
    for cell in wrong:
        mask[compartment(cell)] = True
    return Tray(_photograph(fine, rng), mask, parts)


def compartment(cell: Cell, fine: int = 1) -> tuple[slice, slice]:
    """Where a compartment's floor lies, at so many samples a px."""
    y, x = (
        slice((CELL * at + _WALL // 2) * fine, (CELL * (at + 1) - _WALL // 2) * fine) for at in cell
    )
    return y, x


def _wrong(anomaly: Anomaly, rng: np.random.Generator) -> tuple[tuple[str, ...], list[Cell]]:
    """What lies where, and in which compartments that is wrong."""
    cells = {
        kind: [(y, x) for y, row in enumerate(LAYOUT) for x, part in enumerate(row) if part == kind]
        for kind in "NW."
    }
    parts = [list(row) for row in LAYOUT]

    def one(kinds: str) -> Cell:
        found = [cell for kind in kinds for cell in cells[kind]]
        return found[int(rng.integers(len(found)))]

    if anomaly == "swapped":
        (y, x), (v, u) = wrong = [one("N"), one("W")]
        parts[y][x], parts[v][u] = "W", "N"
    else:
        (y, x), *_ = wrong = [one("NW" if anomaly == "missing" else ".")]
        parts[y][x] = "." if anomaly == "missing" else "NW"[int(rng.integers(2))]
    return tuple(map("".join, parts)), wrong


def _put(fine: NDArray[np.float32], cell: Cell, part: str, rng: np.random.Generator) -> None:
    """A part into its compartment, somewhere about its middle, turned anyhow."""
    away, angle = rng.uniform(-_AWAY, _AWAY, 2), rng.uniform(0, 2 * np.pi)
    shine = rng.uniform(0.93, 1.07)
    if part == ".":
        return
    middle = ((np.array(cell[::-1]) + 0.5) * CELL + away) * _FINE
    corners = angle + np.arange(6) / 6 * 2 * np.pi if part == "N" else np.arange(72) / 36 * np.pi
    colour = tuple(float(shine * level) for level in _METAL[part])
    for radius, level in ((_PART, colour), (_HOLE[part], _FLOOR)):
        if radius < _PART:
            corners = np.arange(72) / 36 * np.pi
        edge = middle + radius * _FINE * np.stack([np.cos(corners), np.sin(corners)], axis=1)
        cv2.fillPoly(fine, [np.rint(edge).astype(np.int32)], level)


def _photograph(fine: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Under a light of its own from one side, through a lens, with noise."""
    height, width = (side // _FINE for side in fine.shape[:2])
    sharp = cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA)
    image = cv2.GaussianBlur(sharp, (0, 0), _BLUR)
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    gain, down, right = rng.uniform(-_LIGHT, _LIGHT, 3)
    image = image * (1 + gain + down * y + right * x)[..., None]
    image = image + rng.normal(0, _NOISE, image.shape)
    return np.asarray(np.rint(255 * np.clip(image, 0, 1)), np.uint8)
