"""Shapes around those of a few real defects: bent, joined, turned and scaled, no two alike.

An engine that was learned from examples carries their masks in ``shapes.json``. What is drawn from
them has their sizes and forms, and more of both than the examples themselves: a detector that sees
the same five shapes again and again learns little from them.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from math import ceil, exp, hypot, log
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from ..config.masks import MOST_INSTANCES
from ..errors import EngineError, InputError
from ..files import read_file
from ..images.types import Mask
from .pieces import tight
from .places import Places
from .resizing import reduce_mask

__all__ = [
    "SHAPES_FILE",
    "ExampleRegions",
    "ExampleShapes",
    "Examples",
    "bent",
    "read_examples",
    "runs_one_way",
    "turned",
    "warp",
    "write_examples",
]

Rng = np.random.Generator

SHAPES_FILE = "shapes.json"
#: Larger files are not read.
_MAX_BYTES = 16 << 20
#: Least and greatest area beside an example's; share of shapes that are two examples in one.
_AREA, _JOINED = (0.5, 2.0), 0.15
#: Degrees that a shape may lean where the examples run one way.
_LEAN = 12.0
#: How far an outline is bent at most, as a share of the shape's own size.
_BEND = 0.18
#: Length over thickness from which a shape runs some way, how many of them say which, and how
#: seldom as many would agree by chance.
_LONG, _FEW, _BY_CHANCE = 2.5, 4, 0.02
#: Samples a px, each way, while an outline is bent; px over which it is moved one way.
_FINE, _SMOOTH = 3, 10.0
#: Longest side in px of a region of a whole image: finer than any model sees it.
_REGION = 512


_Strength = Annotated[float, Field(ge=0, le=1000)]


class _Shape(BaseModel):
    """One mask: its size, and its bits row by row, 8 in a byte, in base64."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    height: Annotated[int, Field(ge=1, le=4096)]
    width: Annotated[int, Field(ge=1, le=4096)]
    bits: str

    @model_validator(mode="after")
    def _whole(self) -> _Shape:
        try:
            data = base64.b64decode(self.bits, validate=True)
        except ValueError as error:
            raise ValueError("bits are not base64") from error
        if len(data) != (self.height * self.width + 7) // 8:
            raise ValueError(f"{len(data)} bytes for {self.height}x{self.width} bits")
        if not self.mask().any():
            raise ValueError("an empty mask")
        return self

    def mask(self) -> Mask:
        """[h,w]"""
        data = np.frombuffer(base64.b64decode(self.bits), np.uint8)
        bits = np.unpackbits(data, count=self.height * self.width)
        return bits.reshape(self.height, self.width).astype(bool)


class Examples(BaseModel):
    """What the examples of one type of defect say of its masks.

    shapes     their own
    strengths  of each defect that has anything around it, see `defectrt.images.contrast`
    directed   whether they run one way, so that shapes are not turned
    places     where they lie
    instances  how many each of the examples' images shows
    whole      whether shapes are as large as their images, and stay where they are in them
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    shapes: Annotated[list[_Shape], Field(min_length=1, max_length=10_000)]
    strengths: Annotated[list[_Strength], Field(max_length=10_000)]
    directed: bool
    places: Places
    instances: Annotated[
        list[Annotated[int, Field(ge=1, le=MOST_INSTANCES)]],
        Field(min_length=1, max_length=10_000),
    ]
    whole: bool = False

    @classmethod
    def of(
        cls,
        masks: Sequence[Mask],
        strengths: Sequence[float],
        *,
        directed: bool,
        places: Places,
        instances: Sequence[int],
        whole: bool = False,
    ) -> Examples:
        """From masks [h,w] that are not empty; more ``instances`` than possible are fewer."""
        shapes = [
            _Shape(
                height=mask.shape[0],
                width=mask.shape[1],
                bits=base64.b64encode(np.packbits(mask).tobytes()).decode(),
            )
            for mask in map(_reduced if whole else tight, masks)
        ]
        return cls(
            shapes=shapes,
            strengths=list(strengths),
            directed=directed,
            places=places,
            instances=[min(count, MOST_INSTANCES) for count in instances],
            whole=whole,
        )

    def masks(self) -> list[Mask]:
        """Each [h,w], tight unless it is ``whole``."""
        return [shape.mask() for shape in self.shapes]


_File = TypeAdapter(dict[str, Examples])


def write_examples(folder: Path, examples: Mapping[str, Examples]) -> None:
    """Write ``shapes.json``: the examples of each type of defect."""
    text = _File.dump_json(dict(examples), indent=1)
    (folder / SHAPES_FILE).write_bytes(text + b"\n")


def read_examples(engine: Path) -> dict[str, Examples]:
    """The examples of an engine directory by type of defect; none if it was not learned from any.

    Raises `EngineError` for a file that is not what it should be.
    """
    path = engine / SHAPES_FILE
    if not path.is_file():
        return {}
    try:
        return _File.validate_json(read_file(path, _MAX_BYTES))
    except InputError as error:
        raise EngineError(str(error)) from None
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(map(str, fault["loc"]))
        raise EngineError(f"{path}: not the shapes of examples: {where}: {fault['msg']}") from None


class ExampleShapes:
    """Shapes from the examples of one type of defect."""

    def __init__(
        self,
        masks: Sequence[Mask],
        *,
        directed: bool,
        scale: tuple[float, float] | None = None,
    ) -> None:
        """``masks`` are tight and not empty; where they are ``directed``, they are not turned.

        ``scale`` is the smallest and the largest beside theirs; by default areas are half to twice.
        """
        self._masks, self._directed, self._scale = masks, directed, scale
        self._area = (scale[0] ** 2, scale[1] ** 2) if scale else _AREA

    def __call__(
        self, rng: Rng, size: tuple[int, int]
    ) -> Callable[[float], tuple[Mask, dict[str, Any]]]:
        """Another one at every scale; its seed and scale make it again."""

        def make(scale: float) -> tuple[Mask, dict[str, Any]]:
            seed = int(rng.integers(2**53))
            shape = self._draw(np.random.default_rng(seed), scale)
            return shape, {"from": "examples", "scale": round(scale, 4), "shape_seed": seed}

        return make

    def record(self) -> dict[str, Any]:
        """The engine, which is recorded as a whole, decides the shapes."""
        return {"from": "examples"} | ({"scale": list(self._scale)} if self._scale else {})

    def _draw(self, rng: Rng, scale: float) -> Mask:
        low, high = self._area
        shape, change = self._one(rng), exp(rng.uniform(log(low), log(high)))
        if rng.random() < _JOINED:
            shape, change = _join(shape, warp(self._one(rng), self._angle(rng)), rng), change / 2
        return warp(
            shape if rng.integers(2) else shape[:, ::-1],
            self._angle(rng),
            scale * change**0.5,
            bend=rng.uniform(0, _BEND),
            rng=rng,
        )

    def _one(self, rng: Rng) -> Mask:
        return self._masks[int(rng.integers(len(self._masks)))]

    def _angle(self, rng: Rng) -> float:
        if self._directed:
            return float(rng.uniform(-_LEAN, _LEAN) + 180 * rng.integers(2))
        return float(rng.uniform(0, 360))


class ExampleRegions:
    """The masks of the examples of one type where they lie: regions in which it may happen."""

    def __init__(self, masks: Sequence[Mask]) -> None:
        """``masks`` are as large as their images, or smaller alike, and not empty."""
        self._masks = masks

    def __call__(
        self, rng: Rng, size: tuple[int, int]
    ) -> Callable[[float], tuple[Mask, dict[str, Any]]]:
        """Any of them as large as the image; where it has no room, another, no smaller one."""

        def make(scale: float) -> tuple[Mask, dict[str, Any]]:
            number = int(rng.integers(len(self._masks)))
            return reduce_mask(self._masks[number], *size), {"from": "examples", "example": number}

        return make

    def record(self) -> dict[str, Any]:
        """The engine, which is recorded as a whole, decides the regions."""
        return {"from": "examples"}


def _reduced(mask: Mask) -> Mask:
    """[H,W] -> [h,w] of at most `_REGION` px."""
    times = max(1.0, max(mask.shape) / _REGION)
    return reduce_mask(mask, *(max(1, round(side / times)) for side in mask.shape))


def warp(
    shape: Mask,
    angle: float = 0.0,
    scale: float = 1.0,
    *,
    bend: float = 0.0,
    rng: Rng | None = None,
) -> Mask:
    """A tight mask [h,w], turned by ``angle`` degrees, scaled, its outline moved about smoothly.

    ``bend`` is the largest move as a share of the shape's own size, √area. The result [h',w'] has
    scale² times the shape's area, to the px: those px that the warped shape covers most. So what is
    thin neither swells nor goes away.
    """
    area = max(1, round(scale**2 * int(shape.sum())))
    reach = bend * float(area) ** 0.5
    half = ceil(hypot(*shape.shape) * scale / 2 + reach) + 2
    x, y = bent(half, reach, rng, fine=_FINE)
    h, w = shape.shape
    source_x, source_y = turned(x, y, angle, scale)
    source_x, source_y = source_x + w // 2 - 0.5, source_y + h // 2 - 0.5
    covered = cv2.remap(
        shape.astype(np.float32),
        source_x.astype(np.float32),
        source_y.astype(np.float32),
        cv2.INTER_LINEAR,
    )
    share = covered.reshape(2 * half, _FINE, 2 * half, _FINE).mean(axis=(1, 3))
    most = np.argsort(share, axis=None, kind="stable")[::-1][:area]
    mask = np.zeros(share.shape, bool)
    mask.flat[most] = share.flat[most] > 0
    return tight(mask)


def bent(
    half: int, reach: float, rng: Rng | None, *, fine: int = 1
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Coordinates x and y of a square from ``-half`` to ``half`` px, moved by up to ``reach``.

    They are moved about smoothly, by random numbers of ``rng``; ``fine`` samples a px each way.
    """
    along = (np.arange(2 * half * fine, dtype=np.float32) + 0.5) / fine - half
    x, y = np.meshgrid(along, along)
    if reach and rng is not None:
        over = max(_SMOOTH, 4 * reach) * fine
        x, y = (axis + reach * _smooth(rng, axis.shape, over) for axis in (x, y))
    return np.asarray(x, np.float32), np.asarray(y, np.float32)


def turned(
    x: NDArray[np.float32], y: NDArray[np.float32], angle: float, scale: float
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Where px around the middle come from in what is turned by ``angle`` degrees and scaled."""
    cos, sin = np.cos(np.radians(angle)) / scale, np.sin(np.radians(angle)) / scale
    return cos * x - sin * y, sin * x + cos * y


def runs_one_way(masks: Sequence[Mask]) -> bool:
    """Whether long shapes share a direction by more than chance (Rayleigh's test of axes)."""
    axes = [axis for mask in masks if (axis := _axis(mask)) is not None]
    if len(axes) < _FEW or len(axes) < len(masks) / 2:
        return False
    return bool(np.exp(-len(axes) * abs(np.mean(axes)) ** 2) < _BY_CHANCE)


def _axis(mask: Mask) -> complex | None:
    """Twice the angle of a long shape's axis, on the unit circle."""
    covariance = np.cov(np.stack(np.nonzero(mask))) if mask.sum() > 1 else np.eye(2)
    values, vectors = np.linalg.eigh(covariance)
    if values[1] < _LONG**2 * max(values[0], 1e-6):
        return None
    y, x = vectors[:, 1]
    return complex(x, y) ** 2


def _join(shape: Mask, other: Mask, rng: Rng) -> Mask:
    """Two shapes in one: a px of the other on a px of the first; both whole."""
    (ys, xs), (yo, xo) = np.nonzero(shape), np.nonzero(other)
    i, k = rng.integers(len(ys)), rng.integers(len(yo))
    dy, dx = int(ys[i] - yo[k]), int(xs[i] - xo[k])
    top, left = max(0, -dy), max(0, -dx)
    height = max(top + shape.shape[0], top + dy + other.shape[0])
    width = max(left + shape.shape[1], left + dx + other.shape[1])
    joined = np.zeros((height, width), bool)
    joined[top : top + shape.shape[0], left : left + shape.shape[1]] |= shape
    joined[top + dy : top + dy + other.shape[0], left + dx : left + dx + other.shape[1]] |= other
    return tight(joined)


def _smooth(rng: Rng, size: tuple[int, ...], sigma: float) -> NDArray[np.float32]:
    """A random field [H,W] in [-1,1] that changes over about ``sigma`` px."""
    cells = [max(3, int(np.ceil(side / sigma)) + 2) for side in size]
    coarse = rng.uniform(-1, 1, cells).astype(np.float32)
    field = cv2.resize(coarse, (size[1], size[0]), interpolation=cv2.INTER_CUBIC)
    return np.asarray(np.clip(field, -1, 1), np.float32)
