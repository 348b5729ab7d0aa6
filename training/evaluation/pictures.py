"""Figures of made pictures beside real ones: one type of defect after another.

    body = evaluate_pictures(Path("made"), PicturesConfig(real=(Path("held_out"),)), out=Path("ev"))

``evaluation.json`` in ``out`` has all of it, with the name and the hash of every network and of
every picture; ``report.html`` shows it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from defectrt import __version__
from defectrt.files import write_whole
from defectrt.images.preview import evenly
from defectrt.images.types import Bits, Mask
from defectrt.images.window import Window, place_window, to_model
from defectrt.progress import Progress

from ..data.samples import Sample, hashes_of, names_of
from ..proving.hints import Looks, looks
from ..proving.intervals import resampled
from .config import PicturesConfig
from .likeness import fid, kid, kid_of_halves
from .material import Compared, Material, read_compared
from .networks.opening import Network, open_network
from .perception import Perceived, diversity, diversity_within, perceived
from .pictures_page import Neighbour, write_pictures_page
from .spread import spread_distance
from .two_sample import seen, told_apart

__all__ = ["EVALUATION", "PICTURES", "evaluate_crops", "evaluate_pictures", "measure"]

#: What is written of a dataset, and of a run, whose other figures have that name already.
EVALUATION, PICTURES = "evaluation.json", "pictures.json"
Floats = NDArray[np.float64]

#: px around a defect that are seen with it; sides of windows are multiples of this.
_AROUND, _STEP, _LEAST = 8, 16, 32
#: Pictures below which a figure of a distribution says little.
_FEW = 50
#: Bootstrap samples of distances, quantiles of distributions.
_QUANTILES = (0.1, 0.5, 0.9)
#: Made defects that are shown beside what they are nearest to.
_SHOWN = 8
_OUTSIDE = 0.05


def evaluate_pictures(
    made: Path, config: PicturesConfig, *, out: Path, quiet: bool = True
) -> dict[str, Any]:
    """Measure a dataset of made defects beside real ones that nothing was learned from.

    ``made`` is an output of this program, a folder of several, or any dataset with masks. Writes
    ``out``/evaluation.json and ``out``/report.html; returns the former. Raises `InputError` for
    what cannot be compared, `UsageError` for a network that is none.
    """
    networks = [open_network(name) for name in config.network]
    body, neighbours = measure(read_compared(made, config), networks, config, quiet=quiet)
    return _write(out, EVALUATION, {"made": str(made)} | body, neighbours)


def evaluate_crops(
    run: Path,
    types: Mapping[str, Compared],
    config: PicturesConfig,
    *,
    out: Path,
    quiet: bool = True,
) -> dict[str, Any]:
    """The same of crops that a run has made, beside its other figures in ``out``/evaluation.json.

    Writes ``out``/pictures.json and ``out``/report.html; returns the former.
    """
    networks = [open_network(name) for name in config.network]
    body, neighbours = measure(Material(dict(types)), networks, config, quiet=quiet)
    return _write(out, PICTURES, {"made": str(run)} | body, neighbours)


def measure(
    material: Material, networks: Sequence[Network], config: PicturesConfig, *, quiet: bool = True
) -> tuple[dict[str, Any], dict[str, list[Neighbour]]]:
    """All figures, as JSON has them, and what made defects are nearest to, by type."""
    types, neighbours = {}, {}
    total = len(networks) * sum(
        len(c.made) + len(c.real) + 8 * len(c.training or ()) for c in material.types.values()
    )
    with Progress(total, "evaluate", quiet=quiet) as progress:
        done = 0

        def look(count: int) -> None:
            nonlocal done
            done += count
            progress.update(done)

        for name, compared in material.types.items():
            types[name], neighbours[name] = _type(compared, networks, config, look)
    body = {
        "format": "defectrt-evaluation",
        "format_version": 1,
        "defectrt": __version__,
        "networks": [
            {"name": n.name, "sha256": n.sha256, "distance": n.distance} for n in networks
        ],
        "types": types,
        "notes": [*material.notes, *_notes(material)],
        "config": config.model_dump(mode="json"),
        "inputs": {name: _hashes(c) for name, c in material.types.items()},
    }
    return body, neighbours


def _write(
    out: Path, name: str, body: dict[str, Any], neighbours: Mapping[str, Sequence[Neighbour]]
) -> dict[str, Any]:
    write_whole(out / name, (json.dumps(body, indent=1, allow_nan=False) + "\n").encode())
    write_pictures_page(out / "report.html", body, neighbours)
    return body


def _notes(material: Material) -> list[str]:
    found = []
    for name, c in material.types.items():
        if c.training is None:
            found.append(
                f"{name}: how near made defects are to what they were learned from is not known; "
                "name that with --training or --engine. Copies score well in every other figure"
            )
        if min(len(c.real), len(c.made)) < _FEW:
            found.append(
                f"{name}: {len(c.made)} made and {len(c.real)} real pictures. FID of so few is far "
                "too large and can be compared with nothing; read KID and its interval"
            )
    return found


def _type(
    c: Compared, networks: Sequence[Network], config: PicturesConfig, look: Callable[[int], None]
) -> tuple[dict[str, Any], list[Neighbour]]:
    side = config.window or _window(c.real)
    views = _Views.of(c, side)
    found: dict[str, Any] = {
        "made": len(c.made),
        "made_workpieces": len(set(c.made_pieces)),
        "real": len(c.real),
        "real_workpieces": len(set(c.real_pieces)),
        "training": None if c.training is None else len(c.training),
        "window": side,
        "looks": _looks(c),
        "told_apart": _told_apart(c, side),
        "networks": {},
    }
    neighbours: list[Neighbour] = []
    for network in networks:
        figures, near = _seen_by(network, views, c, config.seed, look)
        found["networks"][network.name] = figures
        neighbours = neighbours or near
    return found, neighbours


@dataclass(frozen=True)
class _Views:
    """What is seen of each picture: [N,3,S,S] in [0,1]; of training ones turned and mirrored too.

    masks  [8T,S,S] of the latter, in {0,1}
    """

    made: Tensor
    real: Tensor
    training: Tensor | None
    masks: Tensor | None

    @classmethod
    def of(cls, c: Compared, side: int) -> _Views:
        turned = [_turned(*_view(s, side)) for s in c.training or ()]
        if not turned:
            return cls(_stacked(c.made, side), _stacked(c.real, side), None, None)
        views, masks = (
            torch.from_numpy(np.concatenate(parts)) for parts in zip(*turned, strict=True)
        )
        return cls(_stacked(c.made, side), _stacked(c.real, side), views, masks)


def _seen_by(
    network: Network, views: _Views, c: Compared, seed: int, look: Callable[[int], None]
) -> tuple[dict[str, Any], list[Neighbour]]:
    drawn = resampled(c.real_pieces, seed), resampled(c.made_pieces, seed + 1)
    (real, real_maps), (made, made_maps) = (network(v, look) for v in (views.real, views.made))
    found: dict[str, Any] = {}
    if real is not None and made is not None:
        each = min(len(real), len(made))
        pieces = np.asarray(c.real_pieces, np.int64)
        found["fid"] = {
            "value": fid(*(side[evenly(range(len(side)), each)] for side in (real, made))),
            "each": each,
        }
        found["kid"] = asdict(kid(real, made, *drawn)) | {
            "halves_of_real": kid_of_halves(real, pieces, seed)
        }
    if not network.distance:
        return found, []
    of_real, of_made = (perceived(m, network.weights) for m in (real_maps, made_maps))
    learned = None
    if views.training is not None:
        learned = perceived(network(views.training, look)[1], network.weights)
    distances, near = _perceived(of_real, of_made, learned, views.masks, c, drawn)
    return found | distances, near


def _perceived(
    real: Perceived,
    made: Perceived,
    training: Perceived | None,
    masks: Tensor | None,
    c: Compared,
    drawn: tuple[Floats, Floats],
) -> tuple[dict[str, Any], list[Neighbour]]:
    """Diversity, and how near made defects are to those that were learned from."""
    of_real, of_made = real.distances(real), made.distances(made)
    centres = made.distances(real if training is None else training)
    nearest = centres.argmin(axis=1) // (1 if training is None else 8)
    found: dict[str, Any] = {
        "diversity": _interval(diversity(of_made), diversity(of_made, drawn[1])),
        "diversity_of_real": _interval(diversity(of_real), diversity(of_real, drawn[0])),
        "diversity_within": _interval(
            diversity_within(of_made, nearest), diversity_within(of_made, nearest, drawn[1])
        ),
        "clusters": {
            "around": "real" if training is None else "training",
            "count": len(np.unique(nearest)),
        },
        "nearest": None,
    }
    if training is None or masks is None or c.training is None:
        return found, _beside_real(made, real, c)
    to_made, to_real = (side.distances_in(training, masks) for side in (made, real))
    least, usual = to_made.min(axis=1), to_real.min(axis=1)
    order = np.argsort(least)[:_SHOWN]
    near = to_made.argmin(axis=1) // 8
    named, known = names_of(c.made), names_of(c.training)
    found["nearest"] = {
        "made": _spread(least),
        "real": _spread(usual),
        "nearer_than_any_real": float((least < usual.min()).mean()),
        "pairs": [
            {
                "made": named[i],
                "training": known[near[i]],
                "distance": float(least[i]),
            }
            for i in order
        ],
    }
    beside = made.distances(real).argmin(axis=1)
    return found, [
        Neighbour(
            _cell(c.made[i]),
            _cell(c.training[near[i]]),
            _cell(c.real[beside[i]]),
            float(least[i]),
        )
        for i in order
    ]


def _beside_real(made: Perceived, real: Perceived, c: Compared) -> list[Neighbour]:
    distances = made.distances(real)
    near, order = distances.argmin(axis=1), np.argsort(distances.min(axis=1))[:_SHOWN]
    return [
        Neighbour(_cell(c.made[i]), None, _cell(c.real[near[i]]), float(distances[i].min()))
        for i in order
    ]


def _interval(value: Floats, drawn: Floats) -> dict[str, float] | None:
    """A figure, and 95 % of what it is on pictures drawn again; None where there is none."""
    if not np.isfinite(value[0]):
        return None
    spread = drawn - np.nanmean(drawn) + value[0]
    low, high = np.nanquantile(spread, (_OUTSIDE / 2, 1 - _OUTSIDE / 2))
    return {"value": float(value[0]), "low": float(max(0.0, low)), "high": float(high)}


def _spread(values: Floats) -> list[float]:
    """Least, and 10th, 50th and 90th percentile."""
    return [float(values.min()), *(float(q) for q in np.quantile(values, _QUANTILES))]


def _looks(c: Compared) -> dict[str, Any]:
    real, made = (_together(looks(side)) for side in (c.real, c.made))
    columns = [np.column_stack(list(vars(side).values())) for side in (real, made)]
    apart = spread_distance(*columns)
    return {
        name: {
            "real": [float(v) for v in getattr(real, name)],
            "made": [float(v) for v in getattr(made, name)],
            "distance": float(apart[i]),
        }
        for i, name in enumerate(vars(real))
    }


def _together(found: Mapping[str, Looks]) -> Looks:
    """All that is of one type, whatever its name is on either side."""
    sides = [list(vars(one).values()) for one in found.values()]
    return Looks(*(np.concatenate(column) for column in zip(*sides, strict=True)))


def _told_apart(c: Compared, side: int) -> dict[str, Any]:
    """Right guesses of real against made, of windows beside them, of real against real."""
    pieces = c.real_pieces, c.made_pieces
    (real, made), beside = (
        [np.array([seen(s, side, aside=aside) for s in part]) for part in (c.real, c.made)]
        for aside in (False, True)
    )
    of_real = np.asarray(c.real_pieces)
    names = np.random.default_rng(0).permutation(np.unique(of_real))
    first = np.isin(of_real, names[: len(names) // 2])
    halves = of_real[first].tolist(), of_real[~first].tolist()
    return {
        "each": min(len(c.real), len(c.made)),
        "defects": told_apart(real, made, pieces),
        "beside": told_apart(beside[0], beside[1], pieces),
        "real": told_apart(real[first], real[~first], halves),
    }


def _window(real: Sequence[Sample]) -> int:
    reach = [max(int(np.ptp(v)) + 1 for v in np.nonzero(s.mask)) for s in real]
    wanted = float(np.quantile(reach, 0.9)) + 2 * _AROUND
    return max(_LEAST, int(-(-wanted // _STEP)) * _STEP)


def _stacked(samples: Sequence[Sample], side: int) -> Tensor:
    return torch.from_numpy(np.stack([_view(s, side)[0] for s in samples]))


def _view(sample: Sample, side: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """[3,S,S] in [0,1] of a picture around its defect, and the mask [S,S] in {0,1}."""
    window = place_window(sample.mask, side, _AROUND)
    pixels: Any = to_model(window.crop(sample.image), side) / 2 + 0.5
    mask: Any = window.crop(sample.mask).astype(np.float32)
    if mask.shape[0] != side:
        mask = (to_model((mask[..., None] * 255).astype(np.uint8), side)[0] > -1).astype(np.float32)
    return np.asarray(pixels.clip(0, 1), np.float32), mask


def _turned(
    pixels: NDArray[np.float32], mask: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """[8,3,S,S] and [8,S,S]: turned by quarters, and mirrored as well."""
    both = np.concatenate([pixels, mask[None]])
    ways = [np.rot90(side, k, (1, 2)) for side in (both, both[:, :, ::-1]) for k in range(4)]
    stack = np.ascontiguousarray(np.stack(ways))
    return stack[:, :3], np.ascontiguousarray(stack[:, 3])


def _cell(sample: Sample) -> tuple[Bits, Mask, Window]:
    return sample.image, sample.mask, place_window(sample.mask, _LEAST, _AROUND)


def _hashes(c: Compared) -> dict[str, dict[str, str]]:
    sides = {"made": c.made, "real": c.real, "training": c.training or ()}
    return {side: hashes_of(own) for side, own in sides.items()}
