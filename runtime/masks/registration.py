"""Registration: what is drawn once on a golden image is carried to every other image.

A similarity is guessed from matching features (SIFT, RANSAC) and from "it did not move", refined
by ECC, and then has to prove itself. The proof does not ask the method that made the guess: the
golden image is warped onto the other one and compared block by block, where it has texture. A
image whose blocks do not agree, or agree elsewhere as well, is refused; nothing is guessed.
ECC: Evangelidis and Psarakis, "Parametric image alignment using enhanced correlation
coefficient maximization", PAMI 2008.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from math import ceil, hypot
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..files import sha256_of
from ..images.reading import read_image
from ..images.types import Bits, Mask, without_alpha
from .reading import read_region
from .regions import Region, shrunk

__all__ = ["Alignment", "Golden", "carry", "register"]

Field = NDArray[np.float32]
Matrix = NDArray[np.float64]

#: The longest side, in px, of the copies that are aligned, and of the blocks that are compared.
_SIDE, _BLOCK = 512, 32
#: Correlation from which a block agrees; its own contrast, in grey levels, to be asked at all.
_AGREES, _TEXTURE = 0.6, 4.0
_FEWEST_BLOCKS = 6
#: Share of the full range that an image has to use, and of its blocks that have to be in view.
_CONTRAST, _IN_VIEW = 0.03, 0.5
#: Px of the copies that agreeing blocks may be off, in the mean.
_OFF = 1.5
#: How high a second place may correlate, as a share of the first.
_SECOND = 0.8
#: How much larger the part may be, in relation to the image, than in the golden one.
_SCALES = (0.5, 2.0)


@dataclass(frozen=True)
class Alignment:
    """How a golden image lies in another.

    matrix       [2,3], takes (x, y, 1) of the golden image to (x, y) of the other
    confidence   share of the golden image's textured blocks in view that agree
    error        px of the other image by which agreeing blocks are off, in the mean
    """

    matrix: Matrix
    confidence: float
    error: float


def register(golden: Bits, image: Bits, min_confidence: float = 0.85) -> Alignment:
    """Find the golden image [H,W,C] in another one, which may be shifted, turned or scaled.

    Light and contrast may differ. Raises `InputError` with the reason if less than
    ``min_confidence`` of the textured blocks in view agree, if there is too little to tell, or
    if it fits elsewhere as well, as a periodic texture does.
    """
    (one, from_scale), (two, to_scale) = _reduced(golden), _reduced(image)
    tried = [_verify(one, two, matrix) for matrix in _guesses(one, two)]
    best = max(tried, key=lambda proof: proof.correlation)
    if best.confidence < min_confidence:
        raise InputError(
            f"{best.confidence:.0%} of the golden image is found again, "
            f"at least {min_confidence:.0%} is needed"
        )
    if best.error > _OFF:
        raise InputError(f"the golden image lies {best.error / to_scale:.1f} px off")
    zoom = hypot(best.matrix[0, 0], best.matrix[1, 0])
    if not _SCALES[0] <= zoom <= _SCALES[1]:
        raise InputError(f"the part is {zoom:.2g} times as large as in the golden image")
    second = _second_place(one, two, best.matrix)
    if second > _SECOND:
        raise InputError(f"the golden image fits elsewhere too ({second:.0%} as well)")
    matrix = _unscaled(best.matrix, from_scale, to_scale).round(6)
    return Alignment(matrix, round(best.confidence, 3), round(best.error / to_scale, 2))


def carry(mask: Mask, alignment: Alignment, size: tuple[int, int]) -> Mask:
    """A mask [H,W] of the golden image in the other one of ``size`` (H, W); empty beyond."""
    flags = cv2.INTER_NEAREST
    warped = cv2.warpAffine(mask.view(np.uint8), alignment.matrix, size[::-1], flags=flags)
    return np.asarray(warped).astype(bool)


class Golden:
    """Legal and forbidden regions, drawn once on a golden image and carried to every other.

    Both shrink the region by what the alignment may be off, so that a pixel that is forbidden
    stays so. Without ``legal`` everything is that is not ``forbidden``.
    """

    def __init__(
        self,
        golden: Path,
        legal: Path | None,
        forbidden: Path | None = None,
        min_confidence: float = 0.85,
    ) -> None:
        """Read all of them. Raises `InputError` for what cannot be read or leaves no region."""
        self._golden, self._min_confidence = read_image(golden), min_confidence
        size = self._golden.shape[0], self._golden.shape[1]
        self._region = read_region(legal, size) if legal else np.ones(size, bool)
        if forbidden:
            self._region = self._region & ~read_region(forbidden, size)
        if not self._region.any():
            raise InputError(
                f"{legal or forbidden}: all that is legal is forbidden too; draw them apart"
            )
        names = {"golden": golden, "legal": legal, "forbidden": forbidden}
        self._files = {name: sha256_of(path) for name, path in names.items() if path}

    def __call__(self, source: str, image: Bits) -> Region:
        """The region carried to one image. Raises `InputError` if it is not surely there."""
        try:
            alignment = register(self._golden, image, self._min_confidence)
        except InputError as fault:
            raise InputError(f"{source}: cannot be aligned: {fault}") from None
        size = image.shape[0], image.shape[1]
        coarse = max(1.0, max(size) / _SIDE)
        region = shrunk(carry(self._region, alignment, size), ceil(alignment.error + coarse))
        record = {
            "from": "golden",
            "confidence": alignment.confidence,
            "error": alignment.error,
            "matrix": alignment.matrix.tolist(),
        }
        return Region(region, record)

    def record(self) -> dict[str, Any]:
        """The hashes of what was drawn, and the gate."""
        return {"from": "golden", **self._files, "min_confidence": self._min_confidence}


def _unscaled(matrix: Matrix, from_scale: float, to_scale: float) -> Matrix:
    """The same map between the images that the copies were made of, pixel middles on middles."""
    before = np.array(
        [[from_scale, 0, from_scale / 2 - 0.5], [0, from_scale, from_scale / 2 - 0.5]]
    )
    linear = matrix[:, :2] @ before + np.array([[0.0, 0.0, 0.5]])
    linear[:, 2] += matrix[:, 2]
    unscaled: Matrix = linear / to_scale - np.array([[0.0, 0.0, 0.5]])
    return unscaled


def _reduced(image: Bits) -> tuple[Field, float]:
    """[H,W,C] -> [h,w] float32, 0 to 255 from dark to light, alpha left out; and the scale."""
    scale = min(1.0, _SIDE / max(image.shape[:2]))
    size = tuple(max(1, round(scale * side)) for side in image.shape[1::-1])
    small = cv2.resize(without_alpha(image), size, interpolation=cv2.INTER_AREA)
    colours = small.reshape(*size[::-1], -1)
    grey = cv2.GaussianBlur(colours.astype(np.float32).mean(axis=2), (0, 0), 1.0)
    low, high = np.quantile(grey, (0.005, 0.995))
    if high - low < _CONTRAST * np.iinfo(image.dtype).max:
        raise InputError("there is hardly any contrast, so nothing can be found again")
    return np.asarray(np.clip((grey - low) / (high - low) * 255, 0, 255), np.float32), scale


def _guesses(one: Field, two: Field) -> Iterator[Matrix]:
    """Ways in which ``one`` may lie in ``two``: by its features, and unmoved; refined by ECC."""
    starts, everything = [np.eye(2, 3)], np.ones(one.shape, np.uint8)
    with suppress(_NoMatch):
        starts.append(_match_features(one, two))
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 60, 1e-5)
    for start in starts:
        yield start
        with suppress(cv2.error):  # it raises where it does not converge
            warp = start.astype(np.float32)
            cv2.findTransformECC(one, two, warp, cv2.MOTION_AFFINE, criteria, everything, 5)
            yield warp.astype(np.float64)


class _NoMatch(Exception):  # noqa: N818
    pass


def _match_features(one: Field, two: Field) -> Matrix:
    sift = cv2.SIFT.create(nfeatures=1500)
    (points, a), (others, b) = (sift.detectAndCompute(i.astype(np.uint8), None) for i in (one, two))
    if a is None or b is None or len(b) < 2:
        raise _NoMatch
    pairs = cv2.BFMatcher().knnMatch(a, b, k=2)
    good = [m for m, n in pairs if m.distance < 0.8 * n.distance]
    if len(good) < 4:
        raise _NoMatch
    source = np.array([points[m.queryIdx].pt for m in good], np.float32)
    target = np.array([others[m.trainIdx].pt for m in good], np.float32)
    matrix, _ = cv2.estimateAffinePartial2D(source, target, ransacReprojThreshold=3)
    if matrix is None:
        raise _NoMatch
    return np.asarray(matrix, np.float64)


@dataclass(frozen=True)
class _Proof:
    """What the blocks say: share that agrees, their mean correlation and mean distance in px."""

    matrix: Matrix
    confidence: float
    correlation: float
    error: float


def _verify(one: Field, two: Field, matrix: Matrix) -> _Proof:
    """Compare block by block, where the golden image has texture and the other one shows it."""
    back = cv2.invertAffineTransform(matrix)
    size = one.shape[1], one.shape[0]
    seen = np.asarray(cv2.warpAffine(two, back, size, flags=cv2.INTER_LINEAR), np.float32)
    there = cv2.warpAffine(np.ones_like(two), back, size, flags=cv2.INTER_NEAREST) > 0
    textured, found, off = 0, list[float](), list[float]()
    window = cv2.createHanningWindow((_BLOCK, _BLOCK), cv2.CV_32F)
    for block in _blocks(one.shape):
        a, b = one[block], seen[block]
        if a.std() < _TEXTURE:
            continue
        textured += 1
        if there[block].all():
            found.append(_correlation(a, b))
            if found[-1] >= _AGREES:  # copies, since phaseCorrelate writes into what it gets
                shift, _ = cv2.phaseCorrelate(a.copy(), b.copy(), window)
                off.append(min(hypot(*shift), _BLOCK / 4))
    if textured < _FEWEST_BLOCKS:
        raise InputError("the golden image has too little texture to be found again")
    if len(found) < max(_FEWEST_BLOCKS, _IN_VIEW * textured):
        return _Proof(matrix, 0.0, -1.0, np.inf)
    error = float(np.mean(off)) if off else np.inf
    return _Proof(matrix, len(off) / len(found), float(np.mean(found)), error)


def _blocks(shape: tuple[int, ...]) -> Iterator[tuple[slice, slice]]:
    """Blocks that overlap by half, all over an image of [h,w]."""
    for y in range(0, shape[0] - _BLOCK + 1, _BLOCK // 2):
        for x in range(0, shape[1] - _BLOCK + 1, _BLOCK // 2):
            yield slice(y, y + _BLOCK), slice(x, x + _BLOCK)


def _correlation(a: Field, b: Field) -> float:
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / max(np.sqrt((a * a).sum() * (b * b).sum()), 1e-9))


def _second_place(one: Field, two: Field, matrix: Matrix) -> float:
    """How high the second-best shift of the aligned images correlates, 1 like the best.

    Edges are correlated rather than levels, so that a broad light spot is no second place.
    """
    size = one.shape[1], one.shape[0]
    seen = cv2.warpAffine(two, cv2.invertAffineTransform(matrix), size, flags=cv2.INTER_LINEAR)
    edges = [cv2.Laplacian(cv2.GaussianBlur(i, (0, 0), 2), cv2.CV_32F) for i in (one, seen)]
    hann = cv2.createHanningWindow(size, cv2.CV_32F)
    a, b = (np.fft.rfft2(hann * (edge - edge.mean())) for edge in edges)
    surface = np.fft.fftshift(np.fft.irfft2(a * b.conj(), one.shape))
    y, x = one.shape[0] // 2, one.shape[1] // 2
    near = slice(max(0, y - 8), y + 9), slice(max(0, x - 8), x + 9)
    first = float(surface[near].max())
    surface[near] = -np.inf
    return float(surface.max()) / max(first, 1e-9)
