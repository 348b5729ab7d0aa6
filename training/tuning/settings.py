"""What is tried: one change of the defaults at a time, and two together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

import numpy as np

from defectrt.config.masks import DRAWN
from defectrt.masks.examples import Examples

__all__ = ["DEFAULTS", "REAL", "Setting", "together", "tried"]

Interval = tuple[float, float]

#: Scales of masks beside the examples'.
_SMALL, _LARGE = (0.5, 1.0), (1.0, 1.8)
#: The whole range that can still be seen and is not beyond black.
_FAINT, _BLACK = 0.15, 0.95


@dataclass(frozen=True)
class Setting:
    """How defects are painted, and how a detector is trained on them.

    mask_scale, shape, strength  options of ``synthesize``; None: its defaults
    label    what is learned: where the picture changed, or the mask that was asked for
    share    of made pictures among the crops that show a defect; 0: real pictures alone
    part     of the made pictures that are used
    far      whether these are those farthest from each other, or any
    healthy  whether pictures that were painted healthy are further good ones
    """

    mask_scale: Interval | None = None
    shape: str | None = None
    strength: Interval | None = None
    label: Literal["change", "mask"] = "change"
    share: float = 0.5
    part: float = 1.0
    far: bool = False
    healthy: bool = False

    @property
    def painting(self) -> dict[str, Any]:
        """The options of ``synthesize`` that decide what is painted; what is left out is not."""
        found = {"mask_scale": self.mask_scale, "shape": self.shape, "strength": self.strength}
        return {key: value for key, value in found.items() if value is not None}

    @property
    def synthesis(self) -> dict[str, Any]:
        """All options of ``synthesize`` that differ from its defaults."""
        return self.painting | ({"refine": "none"} if self.label == "mask" else {})

    @property
    def changes(self) -> dict[str, Any]:
        """What differs from the defaults."""
        usual = asdict(DEFAULTS)
        return {key: value for key, value in asdict(self).items() if value != usual[key]}

    @property
    def name(self) -> str:
        """In words."""
        if self == REAL:
            return "real alone"
        return ", ".join(_SAID[key](value) for key, value in self.changes.items()) or "defaults"


_SAID: Mapping[str, Any] = {
    "mask_scale": lambda v: f"masks scaled {v[0]:g} to {v[1]:g}",
    "shape": lambda v: "masks drawn by the type's name" if v == DRAWN else f"masks: {v}",
    "strength": lambda v: f"strength {v[0]:g} to {v[1]:g}",
    "label": lambda v: "the mask as label",
    "share": lambda v: f"share {v:g}",
    "part": lambda v: f"{v:.0%} of the pictures",
    "far": lambda v: "those farthest apart",
    "healthy": lambda v: "healthy ones as good",
}

DEFAULTS = Setting()
REAL = Setting(share=0.0)


def tried(examples: Mapping[str, Examples], *, healthy: bool) -> list[Setting]:
    """What to try beside the defaults, what needs nothing painted anew first.

    ``examples`` are those that the engine carries, by type: without any, masks are drawn anyway;
    seen whole, they have no sizes nor strengths to choose.
    """
    found = [
        replace(DEFAULTS, share=0.25),
        replace(DEFAULTS, share=0.75),
        replace(DEFAULTS, label="mask"),
        replace(DEFAULTS, part=0.5),
        replace(DEFAULTS, part=0.5, far=True),
    ]
    found += [replace(DEFAULTS, healthy=True)] if healthy else []
    if not examples or any(own.whole for own in examples.values()):
        return found
    found.append(replace(DEFAULTS, shape=DRAWN))
    known = [one for own in examples.values() for one in own.strengths]
    if known:
        low, middle = (round(float(q), 2) for q in np.quantile(known, (0.1, 0.5)))
        found.append(replace(DEFAULTS, strength=(_FAINT, _BLACK)))
        found.append(replace(DEFAULTS, strength=(max(0.05, round(low / 2, 2)), max(0.1, middle))))
    found += [replace(DEFAULTS, mask_scale=scale) for scale in (_SMALL, _LARGE)]
    return found


def together(one: Setting, other: Setting) -> Setting | None:
    """Both changes in one; None if they are changes of the same thing."""
    if one.changes.keys() & other.changes.keys():
        return None
    both = {f.name: getattr(one, f.name) for f in fields(one)} | {
        key: getattr(other, key) for key in other.changes
    }
    return Setting(**both)
