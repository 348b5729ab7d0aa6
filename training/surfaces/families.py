"""Families of surfaces: each makes a `Surface` that looks like its namesake.

Every function takes a generator and a side in px, and draws its own scale, tone and strength, so
that no two surfaces of a family are alike.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from .light import Field, Rng, Surface, blur, noise

__all__ = ["FAMILIES"]


def _tone(
    rng: Rng, *rgb: float, light: tuple[float, float] = (0.8, 1.2), tint: float = 0.03
) -> Field:
    """A colour near ``rgb``, brighter or darker and a little tinted."""
    colour = np.array(rgb) * rng.uniform(*light) + rng.normal(0, tint, 3)
    return np.clip(colour, 0.06, 0.92).astype(np.float32)


def _grey(rng: Rng, low: float, high: float) -> Field:
    return np.clip(rng.uniform(low, high) + rng.normal(0, 0.008, 3), 0.05, 0.95).astype(np.float32)


def _painted(colour: Field, level: Field) -> Field:
    return np.clip(colour * level[..., None], 0, 1).astype(np.float32)


def _even(size: int, value: float) -> Field:
    return np.full((size, size), value, np.float32)


def _turned(
    rng: Rng, size: int, draw: Callable[[int], tuple[Field, ...]]
) -> tuple[float, list[Field]]:
    """Fields of a grained texture, drawn along y and turned; the angle of the grain."""
    angle = float(rng.choice([np.pi / 2, 0, rng.uniform(0, np.pi)], p=[0.4, 0.2, 0.4]))
    wide = int(1.45 * size) + 2
    turn = cv2.getRotationMatrix2D((wide / 2, wide / 2), 90 - np.degrees(angle), 1)
    cut = (wide - size) // 2
    fields = [
        np.asarray(cv2.warpAffine(f, turn, (wide, wide), flags=cv2.INTER_LINEAR), np.float32)[
            cut : cut + size, cut : cut + size
        ]
        for f in draw(wide)
    ]
    return angle, fields


def brushed_metal(rng: Rng, size: int) -> Surface:
    """Fine parallel grooves, bright, with slow reflections across them."""
    angle, (groove, sheen) = _turned(
        rng,
        size,
        lambda s: (noise(rng, s, 50, 0.7) + 0.5 * noise(rng, s, 14, 0.5), noise(rng, s, 90, 14)),
    )
    level = 1 + rng.uniform(0.03, 0.09) * groove + 0.05 * sheen
    return Surface(
        0.08 * groove,
        _painted(_grey(rng, 0.4, 0.65), level),
        _even(size, 0.6),
        _grey(rng, 0.85, 0.95),
        angle,
    )


def ground_metal(rng: Rng, size: int) -> Surface:
    """Dark metal from the grinding wheel: faint streaks, a few bright ones, uneven tone."""
    angle, (streak, cloud, spark) = _turned(
        rng,
        size,
        lambda s: (noise(rng, s, 60, 0.8), noise(rng, s, 60, 30, 2), noise(rng, s, 25, 0.6)),
    )
    level = 1 + 0.08 * streak + rng.uniform(0.05, 0.2) * cloud + 0.25 * np.maximum(spark - 2.2, 0)
    grit = 0.15 * noise(rng, size, 0.8, 0.8)
    return Surface(
        0.06 * streak + grit,
        _painted(_grey(rng, 0.15, 0.42), level),
        _even(size, 0.3),
        _grey(rng, 0.6, 0.85),
        angle,
    )


def cast_metal(rng: Rng, size: int) -> Surface:
    """Rounded grain, dull."""
    scale = rng.uniform(1.5, 3.2)
    height = rng.uniform(0.35, 0.6) * noise(rng, size, scale, scale, 2) + 0.5 * noise(
        rng, size, 14, 14
    )
    level = 1 + 0.05 * noise(rng, size, 4, 4)
    return Surface(
        height, _painted(_grey(rng, 0.25, 0.5), level), _even(size, 0.3), _grey(rng, 0.75, 0.9)
    )


def painted_metal(rng: Rng, size: int) -> Surface:
    """Lacquer with orange peel, glossy."""
    scale = rng.uniform(3, 6)
    height = rng.uniform(0.05, 0.16) * noise(rng, size, scale, scale) + 0.3 * noise(
        rng, size, 40, 40
    )
    colour = _tone(rng, *_LACQUERS[rng.integers(len(_LACQUERS))])
    level = 1 + 0.015 * noise(rng, size, 20, 20)
    return Surface(height, _painted(colour, level), _even(size, 0.8), _grey(rng, 0.7, 0.9))


_LACQUERS = (
    (0.75, 0.75, 0.73), (0.15, 0.3, 0.5), (0.5, 0.12, 0.1), (0.2, 0.4, 0.22), (0.75, 0.6, 0.15),
    (0.2, 0.2, 0.22),
)  # fmt: skip


def plastic(rng: Rng, size: int) -> Surface:
    """Moulded, with the fine matt texture of an eroded mould."""
    scale = rng.uniform(0.9, 1.6)
    height = rng.uniform(0.1, 0.3) * noise(rng, size, scale, scale) + 0.2 * noise(rng, size, 30, 30)
    colour = _tone(rng, *_PLASTICS[rng.integers(len(_PLASTICS))])
    return Surface(
        height, _painted(colour, _even(size, 1)), _even(size, 0.25), np.clip(colour + 0.3, 0, 0.95)
    )


_PLASTICS = (
    (0.2, 0.2, 0.21), (0.72, 0.71, 0.68), (0.45, 0.46, 0.48), (0.18, 0.32, 0.55), (0.7, 0.35, 0.12),
)  # fmt: skip


def concrete(rng: Rng, size: int) -> Surface:
    """Cloudy grey with pores and sand."""
    pores = np.maximum(noise(rng, size, 1.2, 1.2) - 2.4, 0)
    height = 0.22 * noise(rng, size, 3, 3, 2) - 2.0 * pores
    level = 1 + 0.07 * noise(rng, size, 16, 16, 3) + 0.03 * noise(rng, size, 0.7, 0.7)
    return Surface(
        height,
        _painted(_tone(rng, 0.55, 0.54, 0.51, tint=0.012), level),
        _even(size, 0.03),
        _grey(rng, 0.7, 0.8),
    )


def stone(rng: Rng, size: int) -> Surface:
    """Polished granite: grains of three tones."""
    scale = rng.uniform(1.5, 3)
    grain, mica = noise(rng, size, scale, scale), noise(rng, size, 1.3, 1.3)
    tones = [_grey(rng, 0.55, 0.7), _tone(rng, 0.5, 0.42, 0.38), _grey(rng, 0.18, 0.3)]
    colour = np.where((grain > 0.5)[..., None], tones[1], tones[0])
    colour = np.where((mica > 1.1)[..., None], tones[2], colour).astype(np.float32)
    return Surface(
        0.03 * noise(rng, size, 3, 3),
        blur(colour, 0.6),
        _even(size, 0.5),
        _grey(rng, 0.75, 0.9),
    )


def ceramic_tile(rng: Rng, size: int) -> Surface:
    """Glazed tiles with rounded edges, and the joints between them."""
    pitch = rng.uniform(0.55, 1.3) * size
    y, x = np.mgrid[:size, :size].astype(np.float32) + rng.uniform(0, pitch, (2, 1, 1)).astype(
        np.float32
    )
    edge = np.minimum(*(np.minimum(v % pitch, pitch - v % pitch) for v in (y, x)))
    joint = np.clip((2.2 - edge) / 1.5, 0, 1)
    height = 0.5 * np.minimum(edge, 4) + 0.12 * noise(rng, size, 9, 9)
    glaze = _painted(
        _tone(rng, *_GLAZES[rng.integers(len(_GLAZES))]), 1 + 0.025 * noise(rng, size, 10, 10, 2)
    )
    grout = _painted(_grey(rng, 0.4, 0.65), 1 + 0.08 * noise(rng, size, 1, 1))
    colour = glaze + joint[..., None] * (grout - glaze)
    return Surface(
        height.astype(np.float32),
        colour,
        (0.8 * (1 - joint)).astype(np.float32),
        _tone(rng, 0.68, 0.55, 0.45),
    )


_GLAZES = (
    (0.8, 0.79, 0.75),
    (0.3, 0.5, 0.55),
    (0.6, 0.62, 0.63),
    (0.65, 0.5, 0.35),
    (0.25, 0.3, 0.5),
)


def leather(rng: Rng, size: int) -> Surface:
    """Cells between creases."""
    cell = rng.uniform(5, 10)
    count = int((size / cell) ** 2)
    seeds = np.full((size, size), 255, np.uint8)
    seeds[tuple(rng.integers(0, size, (2, count)))] = 0
    label = cv2.distanceTransformWithLabels(
        seeds, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )[1]
    border = np.zeros((size, size), bool)
    border[:, 1:] |= label[:, 1:] != label[:, :-1]
    border[1:] |= label[1:] != label[:-1]
    away = cv2.distanceTransform((~border).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    crease = blur(np.exp(-away / 1.2).astype(np.float32), 0.7)
    height = -rng.uniform(0.9, 1.6) * crease + 0.08 * noise(rng, size, 1, 1)
    hide = _tone(rng, *_HIDES[rng.integers(len(_HIDES))])
    level = (1 - 0.3 * crease) * (1 + 0.05 * noise(rng, size, 20, 20))
    return Surface(
        height, _painted(hide, level), _even(size, 0.35), np.clip(hide * 1.5 + 0.15, 0, 0.9)
    )


_HIDES = (
    (0.42, 0.27, 0.18),
    (0.2, 0.17, 0.16),
    (0.55, 0.42, 0.3),
    (0.4, 0.15, 0.12),
    (0.3, 0.33, 0.36),
)


def wood(rng: Rng, size: int) -> Surface:
    """Rings along the grain, fibres and pores."""

    def draw(side: int) -> tuple[Field, ...]:
        warp = rng.uniform(3, 7) * noise(rng, side, 60, 14)
        across = np.arange(side, dtype=np.float32)[None, :] + warp
        pitch = rng.uniform(8, 20)
        rings = np.abs((across / pitch) % 1 - 0.35) * 2 - 0.6
        return (
            rings.astype(np.float32),
            noise(rng, side, 16, 0.6),
            np.maximum(noise(rng, side, 5, 0.5) - 2, 0),
        )

    angle, (rings, fibre, pores) = _turned(rng, size, draw)
    timber = _tone(rng, *_TIMBERS[rng.integers(len(_TIMBERS))])
    level = 1 - rng.uniform(0.1, 0.25) * blur(rings, 0.8) + 0.05 * fibre - 0.2 * pores
    return Surface(
        0.10 * fibre - 0.4 * pores,
        _painted(timber, level),
        _even(size, 0.1),
        np.clip(timber * 1.35 + 0.08, 0, 0.92),
        angle,
    )


_TIMBERS = ((0.62, 0.45, 0.28), (0.72, 0.58, 0.40), (0.42, 0.27, 0.17), (0.55, 0.35, 0.22))


def fabric(rng: Rng, size: int) -> Surface:
    """A plain weave of round threads."""
    pitch = rng.uniform(4, 7)
    y, x = np.mgrid[:size, :size].astype(np.float32)
    bend = 0.35 * noise(rng, size, 9, 9)
    u, v = (x + bend) / pitch + rng.random(), (y + bend) / pitch + rng.random()
    over = (np.floor(u) + np.floor(v)) % 2 > 0
    across, along = np.where(over, u, v) % 1 - 0.5, np.where(over, v, u) % 1 - 0.5
    thread = np.sqrt(np.maximum(0.26 - across**2, 0)) + 0.35 * np.cos(np.pi * along)
    height = (0.28 * pitch * thread + 0.12 * noise(rng, size, 0.7, 0.7)).astype(np.float32)
    dye = [_tone(rng, *_DYES[rng.integers(len(_DYES))])] * 2
    if rng.random() < 0.5:
        dye[1] = np.clip(dye[1] * rng.uniform(0.7, 1.3), 0, 0.95)
    colour = np.where(over[..., None], *dye) * (0.55 + 0.55 * thread)[..., None]
    return Surface(
        height,
        np.clip(colour, 0, 1).astype(np.float32),
        _even(size, 0.02),
        np.clip(dye[0] * 1.2 + 0.25, 0, 0.95),
    )


_DYES = (
    (0.35, 0.42, 0.55),
    (0.6, 0.57, 0.5),
    (0.5, 0.25, 0.22),
    (0.25, 0.45, 0.42),
    (0.3, 0.3, 0.32),
)


def printed_board(rng: Rng, size: int) -> Surface:
    """Solder mask over copper: tracks, pads with holes, and white print."""
    drawn = [np.zeros((size, size), np.uint8) for _ in range(4)]
    _draw_board(rng, size, *drawn)
    track, pad, hole, ink = (f.astype(np.float32) / 255 for f in drawn)
    if rng.random() < 0.5:
        track, pad, hole, ink = (np.rot90(f).copy() for f in (track, pad, hole, ink))
    mask = _tone(rng, *_SOLDER_MASKS[rng.integers(len(_SOLDER_MASKS))])
    colour = _painted(mask, 1 + 0.45 * track + 0.02 * noise(rng, size, 1, 1))
    for part, tone in (
        (ink * (1 - pad), _grey(rng, 0.85, 0.92)),
        (pad, _tone(rng, 0.78, 0.66, 0.36)),
        (hole, _grey(rng, 0.06, 0.1)),
    ):
        colour = colour + part[..., None] * (tone - colour)
    height = blur((0.9 * np.maximum(track, pad) - 1.5 * hole + 0.2 * ink).astype(np.float32), 0.7)
    return Surface(
        height,
        colour.astype(np.float32),
        (0.5 * (1 - hole)).astype(np.float32),
        _tone(rng, 0.8, 0.52, 0.3),
    )


def solar_cell(rng: Rng, size: int) -> Surface:
    """Crystals of silicon under fine fingers, and a busbar across them."""
    tone = _tone(rng, *_SILICON[rng.integers(len(_SILICON))], tint=0.015)
    level = 1 + 0.02 * noise(rng, size, 30, 30)
    if rng.random() < 0.6:  # many crystals, each of its own tone
        level = level * blur(_cells(rng, size, rng.uniform(10, 30), 0.22), 0.5)
    pitch, place = rng.uniform(6, 14), rng.uniform(0, 1)
    y, x = np.mgrid[:size, :size].astype(np.float32)
    finger = np.clip(1.2 - np.abs((y + place * pitch) % pitch - pitch / 2), 0, 1)
    apart, wide = rng.uniform(0.6, 1.6) * size, rng.uniform(1.5, 4)
    bar = np.clip(wide - np.abs((x + place * apart) % apart - apart / 2), 0, 1)
    metal = np.maximum(rng.uniform(0.2, 0.6) * finger, 0.9 * bar)
    if rng.random() < 0.5:
        level, metal = level.T, metal.T
    metal = np.ascontiguousarray(metal, np.float32)
    silver = _grey(rng, 0.5, 0.8)
    colour = _painted(tone, level)
    return Surface(
        0.5 * metal + 0.05 * noise(rng, size, 1, 1),
        (colour + metal[..., None] * (silver - colour)).astype(np.float32),
        (0.5 * (1 - metal)).astype(np.float32),
        _grey(rng, 0.4, 0.6),
    )


_SILICON = ((0.10, 0.14, 0.30), (0.08, 0.09, 0.12), (0.30, 0.30, 0.31), (0.16, 0.20, 0.36))


def asphalt(rng: Rng, size: int) -> Surface:
    """Stones of several sizes and tones in dark binder, worn flat."""
    stones = _cells(rng, size, rng.uniform(2.5, 5.5), 0.35)
    grit = noise(rng, size, 0.9, 0.9)
    worn = np.clip(1 + 0.12 * noise(rng, size, 30, 30), 0.7, 1.3)
    height = blur(1.6 * (stones - 1), 0.8) + rng.uniform(0.15, 0.4) * grit
    level = worn * blur(stones, 0.5) * (1 + 0.08 * grit)
    return Surface(
        height.astype(np.float32),
        _painted(_grey(rng, 0.22, 0.5), level),
        _even(size, 0.08),
        _grey(rng, 0.12, 0.25),
    )


def _cells(rng: Rng, size: int, cell: float, spread: float) -> Field:
    """Voronoi's cells of about ``cell`` px, each of a level about 1 that varies by ``spread``."""
    seeds = np.full((size, size), 255, np.uint8)
    count = max(2, int((size / cell) ** 2))
    seeds[tuple(rng.integers(0, size, (2, count)))] = 0
    label = cv2.distanceTransformWithLabels(
        seeds, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )[1]
    levels = 1 + spread * rng.uniform(-1, 1, int(label.max()) + 1)
    return np.asarray(levels[label], np.float32)


Drawing = NDArray[np.uint8]


def _draw_board(
    rng: Rng, size: int, track: Drawing, pad: Drawing, hole: Drawing, ink: Drawing
) -> None:
    """Draw the parts of a printed board, each 255 where it is."""
    step = int(rng.integers(9, 14))
    for lane in rng.permutation(size // step)[: int(0.6 * size / step)]:
        y, bend = int(lane * step + step // 2), int(rng.integers(size))
        turn = int(rng.choice([-1, 0, 1])) * step
        path = np.array([[-9, y], [bend, y], [bend + abs(turn), y + turn], [size + 9, y + turn]])
        width = int(rng.integers(2, 5))
        cv2.polylines(track, [path.astype(np.int32)], False, (255,), width, cv2.LINE_AA)
    for _ in range(max(2, size * size // 2600)):
        centre, radius = _point(rng, size), int(rng.integers(3, 6))
        cv2.circle(pad, centre, radius, (255,), -1, cv2.LINE_AA)
        cv2.circle(hole, centre, radius - 2, (255,), -1, cv2.LINE_AA)
    for _ in range(max(1, size * size // 9000)):
        place = _point(rng, size)
        text = "".join(rng.choice(list("RCUJ123456789"), 2))
        cv2.putText(ink, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.35, (255,), 1, cv2.LINE_AA)


def _point(rng: Rng, size: int) -> tuple[int, int]:
    x, y = rng.integers(0, size, 2)
    return int(x), int(y)


_SOLDER_MASKS = ((0.08, 0.33, 0.16), (0.08, 0.16, 0.38), (0.12, 0.12, 0.13), (0.4, 0.08, 0.08))

#: Makers by name.
FAMILIES: dict[str, Callable[[Rng, int], Surface]] = {
    f.__name__: f
    for f in (
        brushed_metal, ground_metal, cast_metal, painted_metal, plastic, concrete, stone,
        ceramic_tile, leather, wood, fabric, printed_board, solar_cell, asphalt,
    )
}  # fmt: skip
