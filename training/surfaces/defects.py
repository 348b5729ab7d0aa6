"""Kinds of defect: each changes height, colour and gloss of a surface before the light falls on it.

So a scratch catches the light, a dent shades with the normal, and what is laid bare is what lies
below that very surface. The outlines are those of `defectrt.masks.shapes`, from which masks
are drawn at run time too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from defectrt.masks.shapes import WIDE, profile

from .light import Field, Light, Rng, Surface, blur, noise

__all__ = ["DEFECT_TYPES"]

#: (surface, form as `defectrt.masks.shapes.profile` gives it, light, rng) -> the surface, bad
Defect = Callable[[Surface, Field, Light, Rng], Surface]


def _dyed(surface: Surface, amount: Field, dye: Field) -> Field:
    """The colour, moved towards ``dye`` by ``amount`` [S,S] in [0,1]."""
    return surface.colour + amount[..., None] * (dye - surface.colour)


def _mean(surface: Surface) -> float:
    return float(surface.colour.mean())


def scratch(surface: Surface, form: Field, light: Light, rng: Rng) -> Surface:
    """A groove down to the core, with a burr on both sides; it tapers towards its ends."""
    fade = np.clip(0.75 + 0.25 * noise(rng, len(form), 9, 9), 0.4, 1)
    bare = np.clip(1.5 * form, 0, 1) * fade
    height = surface.height + 1.1 * form * (1 - form) - 1.8 * form**2
    bright = np.clip(surface.core + 0.15, 0, 1)
    return replace(surface, height=height, colour=_dyed(surface, bare, bright))


def crack(surface: Surface, form: Field, light: Light, rng: Rng) -> Surface:
    """An open joint, deeper than wide: black, whatever the surface; or filled with pale dust.

    It is wide here and narrow there, and may close for a while.
    """
    closed = rng.uniform(0, 0.5) * (1 + noise(rng, len(form), 6, 6))
    open_ = np.clip(1.8 * form - np.clip(closed, 0, 0.9), 0, 1)
    if rng.random() < _FILLED:
        colour = _dyed(surface, 0.9 * open_, np.clip(surface.core + 0.2, 0, 1))
    else:
        colour = surface.colour * (1 - 0.92 * open_)[..., None]
    return replace(
        surface,
        height=surface.height - 1.6 * open_ * form,
        colour=colour,
        gloss=surface.gloss * (1 - open_),
    )


#: Share of the cracks that are brighter than what is around them.
_FILLED = 0.15


def dent(surface: Surface, form: Field, light: Light, rng: Rng) -> Surface:
    """A smooth hollow in the skin, which stays whole: nothing but shading."""
    radius = max(float(form.max()), 1.0)
    away = 1 - np.clip(form / radius, 0, 1)
    bowl = (1 - away**2) ** 1.5
    # shallow, or all of it would turn away from the light; pressed flat, and shining where the
    # skin was pulled smooth
    height = surface.height * (1 - 0.9 * bowl) - rng.uniform(0.26, 0.38) * radius * bowl
    shine = np.maximum(surface.gloss, 0.8 * np.sqrt(bowl))
    return replace(surface, height=height, gloss=shine)


def hole(surface: Surface, form: Field, light: Light, rng: Rng) -> Surface:
    """Through the skin: maybe a broken rim of bare core, and a floor that is seldom quite dark.

    The floor is rough, and lies deep in one and shallow in the next; light falls on its far side.
    """
    size, radius = len(form), max(float(form.max()), 1.0)
    rim_wide, slope = rng.uniform(0, 1.4), rng.uniform(0.8, max(1.0, 0.7 * radius))
    wall = np.clip((form - rim_wide) / slope, 0, 1)
    rim = rng.uniform(0, 0.8) * np.clip(form / 1.0, 0, 1) * (1 - wall)
    dark = np.clip(rng.uniform(0.35, 0.95) + 0.12 * noise(rng, size, 2.5, 2.5), 0.1, 0.97)
    colour = _dyed(surface, rim, surface.core)
    colour = colour * (1 - dark * wall)[..., None]
    rough = rng.uniform(0, 0.8) * noise(rng, size, 1.6, 1.6)
    return replace(
        surface,
        height=surface.height * (1 - wall) + (rough - rng.uniform(1.0, 3.5)) * wall,
        colour=colour,
        gloss=surface.gloss * (1 - np.maximum(wall, rim)),
    )


def stain(surface: Surface, form: Field, light: Light, rng: Rng) -> Surface:
    """Something spilt and dried: it soaks into the hollows, here more than there; the relief stays.

    A darker rim, or hardly more than a rim, or none.
    """
    size, radius = len(form), max(float(form.max()), 1.0)
    edge = np.clip(form / rng.uniform(1.0, max(1.5, 0.6 * radius)), 0, 1)
    rim = edge * np.exp(-np.square(form / rng.uniform(1.5, 4.5)))
    relief = surface.height - blur(surface.height, 4)
    coarse = rng.uniform(2, 0.8 * radius + 2)
    patches = rng.uniform(0.05, 0.35) * noise(rng, size, coarse, coarse)
    soaked = np.clip(rng.uniform(0.3, 0.8) - 0.25 * np.tanh(relief) + patches, 0.05, 0.9)
    amount = np.clip(edge * soaked + rng.uniform(0, 0.5) * rim, 0, 0.92)
    seen = [d for d in _DYES if abs(float(np.mean(d)) - _mean(surface)) > _DIFFERENT]
    dye = np.array(seen[rng.integers(len(seen))], np.float32)
    dyed = _dyed(surface, amount, 0.25 * surface.colour + 0.75 * dye)
    return replace(surface, colour=dyed, gloss=surface.gloss * (1 - 0.6 * edge))


#: Rust, coffee, oil, soot, lime and clay.
_DYES = (
    (0.45, 0.20, 0.06), (0.30, 0.17, 0.08), (0.13, 0.12, 0.07), (0.08, 0.08, 0.09),
    (0.75, 0.74, 0.70), (0.62, 0.60, 0.52),
)  # fmt: skip
#: What is spilt is brighter or darker than its surface by more than this.
_DIFFERENT = 0.12


def particle(surface: Surface, form: Field, light: Light, rng: Rng) -> Surface:
    """Something that lies on the surface: a lump of another colour, and its shadow beside it.

    Never black, or it would be taken for a hole.
    """
    radius = max(float(form.max()), 1.0)
    dx, dy, _ = light.direction / np.cos(light.elevation)
    reach = 0.22 * radius
    lump = np.clip(_moved(form, reach * dy, reach * dx) - reach, 0, None)
    cover = np.clip(lump / 0.8, 0, 1)
    shadow = 0.65 * np.clip(form / 1.5, 0, 1) * (1 - cover)
    ground = surface.colour.mean(axis=(0, 1))
    foreign = [m for m in _MATTER if np.linalg.norm(m - ground) > _FOREIGN]
    own = np.array(foreign[rng.integers(len(foreign))])
    facets = 1 + 0.12 * noise(rng, len(form), 0.3 * radius, 0.3 * radius)
    colour = surface.colour * (1 - shadow)[..., None]
    colour = colour + cover[..., None] * (np.clip(own, 0.04, 0.95) * facets[..., None] - colour)
    bump = 1.1 * np.sqrt(lump * radius) * facets
    return replace(
        surface,
        height=surface.height * (1 - cover) + bump,
        colour=colour,
        gloss=np.maximum(surface.gloss * (1 - shadow), 0.5 * cover),
    )


#: Sand, chip of blue plastic, red rubber, green paint, swarf.
_MATTER = (
    (0.85, 0.80, 0.68), (0.15, 0.32, 0.68), (0.70, 0.18, 0.12), (0.20, 0.52, 0.25),
    (0.80, 0.81, 0.83),
)  # fmt: skip
#: Matter differs from its surface by more than this, a distance in RGB of [0,1].
_FOREIGN = 0.45


def _moved(field: Field, y: float, x: float) -> Field:
    """A field, moved by whole px."""
    return np.roll(field, (round(y), round(x)), (0, 1))


#: Kinds by name.
DEFECT_TYPES: dict[str, Defect] = {
    f.__name__: f for f in (scratch, crack, dent, hole, stain, particle)
}


def outline(defect_type: str, size: int, window: int, rng: Rng) -> Field:
    """Form [S,S] of a defect of ``defect_type`` somewhere in the middle of an image."""
    low, high = (0.5 * window, size - 0.5 * window) if size > window else (0.35 * size, 0.65 * size)
    centre = rng.uniform(low, high, 2)
    return profile(defect_type, (size, size), centre, window, rng, WIDE).astype(np.float32)
