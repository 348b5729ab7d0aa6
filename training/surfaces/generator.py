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
        self, defect_type: str, window: int, rng: Rng, least: float = 0.3
    ) -> tuple[Scene, NDArray[np.bool_]]:
        """The scene with a defect, and its mask [S,S]: all that may differ, and nothing else.

        ``window`` is the side that the model sees; it sets the scale of the defect, of which there
        is at least ``least``, in (0,1], where 1 is as plain as can be. The slope of
        a px depends on its neighbours, so the mask reaches one px past the form.
        """
        form = outline(defect_type, len(self.surface.height), window, rng)
        inside = form > 0
        mask = cv2.dilate(inside.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        bad, good = DEFECT_TYPES[defect_type](self.surface, form, self.light, rng), self.surface
        share = _share(form, least, rng)
        surface = replace(
            good,
            height=_mixed(bad.height, good.height, share),
            colour=_mixed(bad.colour, good.colour, share[..., None]),
            gloss=_mixed(bad.gloss, good.gloss, share),
        )
        return replace(self, surface=surface), np.asarray(mask)


#: From which share of its depth on there is all of a defect, at most.
_SOFT = 0.6


def _share(form: Field, least: float, rng: Rng) -> Field:
    """How much of the defect is to be seen at each px, [S,S] in [0,1], 0 outside of its form.

    From faint to plain, with a sharp rim or a soft one.
    """
    depth = form / max(float(form.max()), 1e-6)
    ramp = np.clip(depth / rng.uniform(0.01, _SOFT), 0, 1)
    return (rng.uniform(least, 1) * ramp).astype(np.float32)


def _mixed(changed: Field, before: Field, share: Field) -> Field:
    return np.where(share > 0, before + share * (changed - before), before).astype(np.float32)


def draw(
    seed: int, family: str, size: int = 128, defect: str | None = None, *, window: int = 96
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """An image [S,S,3] uint8 of a surface and the mask [S,S] of its defect, if it has one.

    The same seed without a defect is the same surface, good. A defect that nobody would see, such
    as a shallow dent in speckled stone, is drawn again, plainer every time.
    """
    rng = np.random.default_rng([seed, sorted(FAMILIES).index(family)])
    scene = Scene.draw(family, size, rng)
    good = scene.shoot()
    if not defect:
        return good, np.zeros((size, size), bool)
    for least in _PLAINER:
        worse, mask = scene.with_defect(defect, window, rng, least)
        image = worse.shoot()
        if _visible(good, image, mask):
            break
    return image, mask


#: A defect is seen if so many grey levels differ, in the strongest tenth of its px.
_SEEN = 25
#: How much of a defect there is at least, from one try to the next.
_PLAINER = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def _visible(good: NDArray[np.uint8], image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> bool:
    change = np.abs(good.astype(np.int16) - image).max(axis=2)[mask]
    return bool(np.percentile(change, 90) >= _SEEN)
