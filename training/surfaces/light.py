"""What the light falls on, and what a camera sees of it.

A surface is a height field, a colour and a gloss. It is lit from one side: Lambert's law on the
normals, and a highlight after Blinn and Phong where the gloss has one. Lengths are in px.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["Camera", "Field", "Light", "Rng", "Surface", "noise", "shade"]

Field = NDArray[np.float32]
Rng = np.random.Generator


@dataclass(frozen=True)
class Surface:
    """A square of side S.

    height  [S,S] px
    colour  [S,S,3] RGB in [0,1]
    gloss   [S,S] in [0,1]
    core    [3] colour of what lies below the skin, laid bare by a scratch
    grain   direction of the texture in radians from the x axis; None if it has none
    """

    height: Field
    colour: Field
    gloss: Field
    core: Field
    grain: float | None = None


@dataclass(frozen=True)
class Light:
    """Where the light comes from, radians: around the surface, and above it."""

    azimuth: float
    elevation: float

    @classmethod
    def draw(cls, rng: Rng) -> Light:
        """Low enough that relief shows, high enough that it does not drown the image."""
        return cls(rng.uniform(0, 2 * np.pi), rng.uniform(0.75, 1.1))

    @property
    def direction(self) -> Field:
        """Unit vector (x, y, z) towards the light."""
        flat = np.cos(self.elevation)
        return np.array(
            [
                flat * np.cos(self.azimuth),
                flat * np.sin(self.azimuth),
                np.sin(self.elevation),
            ],
            np.float32,
        )


@dataclass(frozen=True)
class Camera:
    """What a camera adds, the same with and without a defect.

    fall   [S,S] brightness of the illumination, about 1
    noise  [S,S,C] sensor noise in grey levels; C is 1 for a grey camera
    """

    fall: Field
    noise: Field

    @classmethod
    def draw(cls, rng: Rng, size: int) -> Camera:
        """Every fourth camera sees grey only."""
        channels = 1 if rng.random() < 0.25 else 3
        fall = 1 + rng.uniform(0, 0.08) * noise(rng, size, 0.6 * size, 0.6 * size)
        sensor = rng.normal(0, rng.uniform(0.5, 2.5), (size, size, channels))
        return cls(np.clip(fall, 0.7, 1.3), sensor.astype(np.float32))

    def shoot(self, lit: Field) -> NDArray[np.uint8]:
        """Light [S,S,3] in [0,1] -> image [S,S,3] uint8."""
        seen = lit * self.fall[..., None]
        if self.noise.shape[2] == 1:
            seen = seen @ np.array([[0.299], [0.587], [0.114]], np.float32)
        image = np.clip(np.rint(255 * seen + self.noise), 0, 255).astype(np.uint8)
        return np.broadcast_to(image, lit.shape).copy()


def noise(rng: Rng, size: int, scale_y: float, scale_x: float, octaves: int = 1) -> Field:
    """Gaussian noise [S,S] of zero mean and unit variance, smooth over scale_y x scale_x px.

    Every further octave is half as coarse and half as strong.
    """
    fy, fx = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :]
    total = np.zeros((size, size))
    for octave in range(octaves):
        part = 0.5**octave
        blur = np.exp(-2 * np.pi**2 * part**2 * ((scale_y * fy) ** 2 + (scale_x * fx) ** 2))
        spectrum = np.fft.rfft2(rng.standard_normal((size, size))) * blur
        spectrum[0, 0] = 0
        wave = np.fft.irfft2(spectrum, (size, size))
        total += part * wave / max(wave.std(), 1e-9)
    return (total / total.std()).astype(np.float32)


def shade(surface: Surface, light: Light) -> Field:
    """Light a surface: [S,S,3] in [0,1].

    The slope counts through its direction: grooves along the light stay dark, across it they
    shine. Hollows are a little darker than what is around them, as the sky above them is smaller.
    """
    height = np.pad(surface.height, 1, mode="edge")
    dx = 0.5 * (height[1:-1, 2:] - height[1:-1, :-2])
    dy = 0.5 * (height[2:, 1:-1] - height[:-2, 1:-1])
    steep = np.sqrt(1 + dx * dx + dy * dy)
    lx, ly, lz = light.direction
    diffuse = np.maximum(lz - lx * dx - ly * dy, 0) / steep
    half = light.direction + np.array([0, 0, 1], np.float32)
    hx, hy, hz = half / np.linalg.norm(half)
    highlight = (np.maximum(hz - hx * dx - hy * dy, 0) / steep) ** 60
    flat = hz**60
    lit = surface.colour * (0.30 + 0.78 * diffuse / lz)[..., None]
    lit += (0.55 * surface.gloss * (highlight - flat))[..., None]
    return np.clip(lit, 0, 1)


def blur(field: Field, sigma: float) -> Field:
    """Gaussian blur of [S,S] or [S,S,3] over ``sigma`` px."""
    return np.asarray(cv2.GaussianBlur(field, (0, 0), sigma), np.float32)
