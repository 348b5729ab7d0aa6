"""A procedural generator of inspection pictures: surfaces, and defects with exact masks.

    python -m defectrt.training.surfaces OUT --count 400 --seed 0

Every surface is a height field, a colour and a gloss, lit from one side: Lambert's law on the
normals, and a highlight where the gloss has one. A defect changes height, colour and gloss
before the light falls on it, so that a scratch catches the light and a dent shades with the
normal. The mask is what the defect changed, exactly. Same seed, same pictures.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from defectrt.images import encode_png
from defectrt.shapes import LINES, blob, line, stroke

__all__ = ["DEFECTS", "SURFACES", "Surface", "draw", "shade"]

Field = NDArray[np.float64]
Rng = np.random.Generator


@dataclass(frozen=True)
class Surface:
    """What the light falls on: height [S,S] in px, colour [S,S,3] and gloss [S,S] in [0,1]."""

    height: Field
    colour: Field
    gloss: Field


def _noise(rng: Rng, size: int, scale_y: float, scale_x: float, slope: float = 0.0) -> Field:
    """Gaussian noise of unit variance, correlated over about scale_y x scale_x px.

    ``slope`` > 0 adds finer octaves, each weaker by 2^-slope.
    """
    total, weight = np.zeros((size, size)), 1.0
    while True:
        spectrum = np.fft.rfft2(rng.normal(size=(size, size)))
        fy, fx = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :]
        spectrum *= np.exp(-2 * np.pi**2 * ((scale_y * fy) ** 2 + (scale_x * fx) ** 2))
        octave = np.fft.irfft2(spectrum, (size, size))
        total += weight * octave / max(octave.std(), 1e-9)
        if slope <= 0 or max(scale_x, scale_y) < 1:
            break
        scale_x, scale_y, weight = scale_x / 2, scale_y / 2, weight * 2.0**-slope
    return total / total.std()


def _tint(rng: Rng, base: tuple[float, float, float], spread: float = 0.06) -> Field:
    return np.clip(np.array(base) * rng.uniform(0.75, 1.2) + rng.normal(0, spread, 3), 0.08, 0.9)


def _plain(shape: tuple[int, int], value: float) -> Field:
    return np.full(shape, value)


def brushed_metal(rng: Rng, size: int) -> Surface:
    """Fine parallel grooves and slow reflections across them."""
    grooves = _noise(rng, size, 40, 0.6) + 0.4 * _noise(rng, size, 12, 0.5)
    level = 1 + 0.06 * _noise(rng, size, 40, 0.7) + 0.05 * _noise(rng, size, 60, 12)
    colour = _tint(rng, (0.52, 0.52, 0.54), 0.008) * level[..., None]
    return Surface(0.10 * grooves, colour, _plain((size, size), 0.6))


def cast_metal(rng: Rng, size: int) -> Surface:
    """Rounded grain, dull."""
    height = 0.5 * _noise(rng, size, 2.0, 2.0, 1.0) + 0.5 * _noise(rng, size, 12, 12)
    colour = _tint(rng, (0.40, 0.40, 0.41), 0.008) * (1 + 0.04 * _noise(rng, size, 3, 3))[..., None]
    return Surface(height, colour, _plain((size, size), 0.3))


def concrete(rng: Rng, size: int) -> Surface:
    """Cloudy grey with pores."""
    pores = np.clip(_noise(rng, size, 1.2, 1.2) - 2.3, 0, None)
    height = 0.25 * _noise(rng, size, 4, 4, 0.6) - 2.0 * pores
    cloud = 1 + 0.08 * _noise(rng, size, 14, 14, 0.8)
    return Surface(
        height, _tint(rng, (0.58, 0.57, 0.54), 0.012) * cloud[..., None], _plain((size, size), 0.05)
    )


def leather(rng: Rng, size: int) -> Surface:
    """Cells between creases."""
    points = rng.uniform(0, size, (max(8, size * size // 45), 2))
    y, x = np.mgrid[:size, :size]
    distance = np.sqrt((y[..., None] - points[:, 0]) ** 2 + (x[..., None] - points[:, 1]) ** 2)
    nearest = np.partition(distance, 1, axis=2)[..., :2]
    crease = np.clip(1 - np.abs(nearest[..., 1] - nearest[..., 0]) / 1.8, 0, 1)
    height = -1.1 * cv2.GaussianBlur(crease, (0, 0), 0.8) + 0.1 * _noise(rng, size, 1, 1)
    colour = _tint(rng, (0.42, 0.27, 0.18)) * (1 - 0.25 * crease)[..., None]
    return Surface(height, colour, _plain((size, size), 0.35))


def wood(rng: Rng, size: int) -> Surface:
    """Rings along the grain, and pores."""
    warp = 5 * _noise(rng, size, 40, 10)
    x = np.arange(size)[None, :] + warp + rng.uniform(0, 50)
    rings = np.sin(x * 2 * np.pi / rng.uniform(7, 14)) + 0.4 * np.sin(x * 2 * np.pi / 3.7)
    fibre = _noise(rng, size, 14, 0.6)
    level = 1 + 0.10 * rings + 0.05 * fibre
    return Surface(
        0.12 * fibre, _tint(rng, (0.62, 0.45, 0.28)) * level[..., None], _plain((size, size), 0.12)
    )


def fabric(rng: Rng, size: int) -> Surface:
    """A plain weave."""
    pitch = rng.uniform(4.5, 6.5)
    y, x = np.mgrid[:size, :size] + rng.uniform(0, 9) + 0.25 * _noise(rng, size, 8, 8)
    warp, weft = np.cos(2 * np.pi * x / pitch), np.cos(2 * np.pi * y / pitch)
    over = np.sign(np.sin(np.pi * x / pitch) * np.sin(np.pi * y / pitch))
    height = 0.7 * np.where(over > 0, np.abs(warp), np.abs(weft)) + 0.1 * _noise(rng, size, 1, 1)
    colour = _tint(rng, (0.35, 0.40, 0.50)) * (0.9 + 0.15 * height)[..., None]
    return Surface(height, colour, _plain((size, size), 0.03))


SURFACES: dict[str, Callable[[Rng, int], Surface]] = {
    f.__name__: f for f in (brushed_metal, cast_metal, concrete, leather, wood, fabric)
}


# ---- defects: surface in, changed surface and its mask out --------------------------------------


def _centre(rng: Rng, size: int) -> Field:
    return rng.uniform(0.3, 0.7, 2) * size


def _path(rng: Rng, kind: str, size: int, shortest: float, longest: float) -> Field:
    return line(rng, _centre(rng, size), rng.uniform(shortest, longest), *LINES[kind])


def _spot(rng: Rng, size: int, radius: float, rough: float) -> Field:
    return blob(rng, _centre(rng, size), (size, size), radius, rough)


def scratch(rng: Rng, surface: Surface) -> tuple[Surface, Field]:
    """A groove with a bright burr: it takes the colour off and catches the light."""
    size = len(surface.height)
    points = _path(rng, "scratch", size, 25, 60)
    profile = stroke(points, (size, size), rng.uniform(1.2, 2.6))
    bare = np.clip(surface.colour.mean() * 1.5 + 0.12, 0.45, 0.95)
    colour = surface.colour + (0.85 * profile)[..., None] * (bare - surface.colour)
    return replace(surface, height=surface.height - 1.2 * profile, colour=colour), profile


def crack(rng: Rng, surface: Surface) -> tuple[Surface, Field]:
    """A dark jagged line, deeper than wide."""
    size = len(surface.height)
    points = _path(rng, "crack", size, 30, 70)
    profile = stroke(points, (size, size), rng.uniform(1.0, 2.4))
    colour = surface.colour * (1 - 0.8 * np.sqrt(profile))[..., None]
    gloss = surface.gloss * (1 - profile)
    return Surface(surface.height - 1.5 * profile, colour, gloss), profile


def dent(rng: Rng, surface: Surface) -> tuple[Surface, Field]:
    """A smooth hollow: nothing but shading."""
    size = len(surface.height)
    radius = rng.uniform(6, 13)
    inside = np.clip(_spot(rng, size, radius, 0.06) / radius, 0, 1)
    bowl = inside * inside * (3 - 2 * inside)
    return replace(surface, height=surface.height - 0.8 * radius * bowl), inside


def hole(rng: Rng, surface: Surface) -> tuple[Surface, Field]:
    """Dark, with a wall that is lit on one side."""
    size = len(surface.height)
    depth = np.clip(_spot(rng, size, rng.uniform(3.5, 8), 0.14), 0, None)
    wall = np.clip(depth / 2.0, 0, 1)
    colour = surface.colour * (1 - 0.85 * wall)[..., None]
    return Surface(surface.height - 4.0 * wall, colour, surface.gloss * (1 - wall)), wall


def stain(rng: Rng, surface: Surface) -> tuple[Surface, Field]:
    """A darker or rusty patch that follows the grain; the relief stays."""
    size = len(surface.height)
    shape = np.clip(_spot(rng, size, rng.uniform(8, 16), 0.3) / 4, 0, 1)
    patch = shape * np.clip(0.8 + 0.12 * _noise(rng, size, 3, 3) + 0.3 * surface.height, 0.45, 1)
    dye = np.array([(0.35, 0.17, 0.07), (0.10, 0.10, 0.12), (0.30, 0.26, 0.12)][rng.integers(3)])
    colour = surface.colour * (1 - 0.65 * patch)[..., None] + (0.65 * patch)[..., None] * dye
    return Surface(surface.height, colour, surface.gloss * (1 - 0.7 * shape)), shape


def particle(rng: Rng, surface: Surface) -> tuple[Surface, Field]:
    """Something that lies on the surface: a bump of another colour."""
    size = len(surface.height)
    radius = rng.uniform(3, 7)
    inside = np.clip(_spot(rng, size, radius, 0.2), 0, None)
    cover = np.clip(inside / 1.0, 0, 1)[..., None]
    own = np.array([(0.9, 0.88, 0.82), (0.15, 0.3, 0.65), (0.75, 0.2, 0.12)][rng.integers(3)])
    colour = surface.colour * (1 - cover) + own * cover
    bump = 1.3 * np.sqrt(inside * radius)
    return Surface(
        surface.height + bump, colour, np.maximum(surface.gloss, 0.3 * cover[..., 0])
    ), inside


DEFECTS: dict[str, Callable[[Rng, Surface], tuple[Surface, Field]]] = {
    f.__name__: f for f in (scratch, crack, dent, hole, stain, particle)
}


def shade(surface: Surface, azimuth: float, elevation: float = 0.9) -> NDArray[np.uint8]:
    """Light a surface from ``azimuth`` (radians); [S,S,3] uint8."""
    dy, dx = np.gradient(surface.height)
    normal = np.stack([-dx, -dy, np.ones_like(dx)], axis=-1)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    light = np.array(
        [
            np.cos(azimuth) * np.cos(elevation),
            np.sin(azimuth) * np.cos(elevation),
            np.sin(elevation),
        ]
    )
    diffuse = np.clip(normal @ light, 0, None)
    half = light + np.array([0, 0, 1])
    highlight = np.clip(normal @ (half / np.linalg.norm(half)), 0, None) ** 40
    lit = surface.colour * (0.35 + 0.85 * diffuse)[..., None]
    lit = lit + (0.25 * surface.gloss * highlight)[..., None]
    return (np.clip(lit, 0, 1) * 255).round().astype(np.uint8)


def draw(
    seed: int, kind: str, size: int = 128, defect: str | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A picture [S,S,3] uint8 of a surface and the mask [S,S] of its defect, if it has one.

    The same seed without a defect is the same surface, good.
    """
    rng = np.random.default_rng([seed, sorted(SURFACES).index(kind)])
    surface = SURFACES[kind](rng, size)
    azimuth, grain = rng.uniform(0, 2 * np.pi), rng.normal(0, 2.0, (size, size, 1))
    mask = np.zeros((size, size), bool)
    if defect:
        surface, amount = DEFECTS[defect](rng, surface)
        mask = amount > 0
    picture = shade(surface, azimuth) + grain
    return np.clip(picture.round(), 0, 255).astype(np.uint8), mask


def main() -> None:
    """Write OUT/good and, for every kind of defect, OUT/<kind> with pictures and masks."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=300, help="pictures of every kind")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    names = sorted(SURFACES)
    for group, defect in enumerate([None, *DEFECTS]):
        folder = args.out / (defect or "good")
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(args.count):
            seed = (args.seed * 100 + group) * 1_000_000 + i
            kind = names[i % len(names)]
            picture, mask = draw(seed, kind, args.size, defect)
            if defect and not mask.any():
                continue
            (folder / f"{kind}_{i:05}.png").write_bytes(encode_png(picture))
            if defect:
                label = mask.astype(np.uint8) * np.uint8(255)
                (folder / f"{kind}_{i:05}_mask.png").write_bytes(encode_png(label))


if __name__ == "__main__":
    main()
