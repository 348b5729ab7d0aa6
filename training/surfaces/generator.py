"""Images of surfaces, good or with a defect and its exact mask; the same seed, the same image.

python -m defectrt.training.surfaces OUT --count 400 --seed 0
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from .defects import DEFECT_TYPES, outline
from .families import FAMILIES
from .light import Camera, Field, Light, Rng, Surface, shade

__all__ = ["Scene", "draw"]


@dataclass(frozen=True)
class Scene:
    """A surface, its light and the camera that looks at it."""

    surface: Surface
    light: Light
    camera: Camera

    @classmethod
    def draw(cls, family: str, size: int, rng: Rng) -> Scene:
        """A scene of ``size`` px."""
        return cls(FAMILIES[family](rng, size), Light.draw(rng), Camera.draw(rng, size))

    def shoot(self) -> NDArray[np.uint8]:
        """The image [S,S,3]."""
        return self.camera.shoot(shade(self.surface, self.light))

    def with_defect(
        self, defect_type: str, window: int, rng: Rng
    ) -> tuple[Scene, NDArray[np.bool_]]:
        """The scene with a defect, and its mask [S,S]: all that may differ, and nothing else.

        ``window`` is the side that the model sees; it sets the scale of the defect. The slope of
        a px depends on its neighbours, so the mask reaches one px past the form.
        """
        form = outline(defect_type, len(self.surface.height), window, rng)
        inside = form > 0
        mask = cv2.dilate(inside.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        bad, good = DEFECT_TYPES[defect_type](self.surface, form, self.light, rng), self.surface
        surface = replace(
            good,
            height=_inside(bad.height, good.height, inside),
            colour=_inside(bad.colour, good.colour, inside),
            gloss=_inside(bad.gloss, good.gloss, inside),
        )
        return replace(self, surface=surface), np.asarray(mask)


def _inside(changed: Field, before: Field, inside: NDArray[np.bool_]) -> Field:
    where = inside[..., None] if changed.ndim == 3 else inside
    return np.where(where, changed, before).astype(np.float32)


def draw(
    seed: int, family: str, size: int = 128, defect: str | None = None, *, window: int = 96
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """An image [S,S,3] uint8 of a surface and the mask [S,S] of its defect, if it has one.

    The same seed without a defect is the same surface, good.
    """
    rng = np.random.default_rng([seed, sorted(FAMILIES).index(family)])
    scene, mask = Scene.draw(family, size, rng), np.zeros((size, size), bool)
    if defect:
        scene, mask = scene.with_defect(defect, window, rng)
    return scene.shoot(), mask
