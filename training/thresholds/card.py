"""From scores to a card: the threshold, its alarms, and what is found at it by size and contrast.

    card = threshold_card(Path("made"), ThresholdConfig(good=…, scores=…), out=Path("card"))

``threshold.json`` in ``out`` has all figures with the hashes of the pictures; ``report.html``
shows them, with the defects at the limit.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defectrt import __version__
from defectrt.errors import InputError
from defectrt.files import write_whole
from defectrt.images.contrast import strength_in
from defectrt.images.types import Mask
from defectrt.progress import Progress

from ..data.dataset import read_defects
from ..data.layouts import GOOD
from ..data.samples import Sample, hashes_of, read_good
from ..proving.command import parts_of
from ..proving.figures import (
    TOP,
    TestSet,
    auroc,
    average_precision,
    best_f1,
    figures,
    image_levels,
    pieces_of,
    tally_of,
    test_set,
)
from ..proving.intervals import resampled
from ..proving.material import read_made
from ..proving.workpieces import workpieces
from .card_page import Sighting, write_card_page
from .chances import best_f1_at, detection, rate, threshold_finding, threshold_for
from .config import ThresholdConfig
from .scores import Scores, read_scores, scores_by

__all__ = ["CARD", "threshold_card"]

CARD = "threshold.json"
Floats = NDArray[np.float64]

#: Bootstrap samples, and the share that an interval leaves out.
_DRAWS, _OUTSIDE = 300, 0.05
#: Levels of a map's scores, at whose quantiles figures of pixels are counted.
_QUANTILES = np.linspace(0, 1, 257)
#: Pixels of a picture that are drawn to find those.
_PIXELS = 2000
#: Defects at the limit that are shown of each kind.
_SHOWN = 8


def threshold_card(
    synthetic: Path, config: ThresholdConfig, *, out: Path, quiet: bool = True
) -> dict[str, Any]:
    """The threshold of a detector for a share of false alarms, from good pictures held out.

    ``synthetic`` is an output of this program, a folder of several, or any dataset with masks.
    Writes ``out``/threshold.json and ``out``/report.html; returns the former. Raises `InputError`
    for pictures or scores that cannot be used, `UsageError` for a command without {data} and {out}.
    """
    if config.detector:
        parts_of(config.detector)
    material = _Material.read(synthetic, config)
    with Progress(4, "threshold", quiet=quiet) as progress:
        progress.update(0, scores=float(len(material.samples)))
        said = _said(material.samples, config, out)
        progress.update(1)
        groups = {n: _Group.of(part, material, said) for n, part in material.groups.items()}
        progress.update(2)
        body, sightings = _card(material, groups, said, config)
        progress.update(3)
        text = json.dumps(body, indent=1, allow_nan=False) + "\n"
        write_whole(out / CARD, text.encode())
        write_card_page(out / "report.html", body, sightings)
        progress.update(4)
    return body


@dataclass(frozen=True)
class _Material:
    """All pictures: good ones first, then the synthetic and the real ones, by ``groups``."""

    samples: list[Sample]
    good: int
    groups: dict[str, slice]
    pieces: NDArray[np.int64]
    notes: list[str]

    @classmethod
    def read(cls, synthetic: Path, config: ThresholdConfig) -> _Material:
        good = [s for folder in config.good for s in read_good(folder)]
        made = [p.sample for p in read_made(synthetic).pictures]
        real = [s for folder in config.real for s in _defects(folder, config.layout)]
        groups = {"synthetic": slice(len(good), len(good) + len(made))}
        if real:
            groups["real"] = slice(len(good) + len(made), len(good) + len(made) + len(real))
        samples = [*good, *made, *real]
        pieces = np.asarray(workpieces(samples, config.group, config.near), np.int64)
        held = set(pieces[: len(good)].tolist())
        shared = sum(int(p) in held for p in pieces[groups["synthetic"]])
        notes = []
        if shared:
            notes.append(
                f"{shared} of {len(made)} synthetic defects lie on a workpiece of the good pictures"
            )
        return cls(samples, len(good), groups, pieces, notes)


@dataclass(frozen=True)
class _Group:
    """Pictures with defects, and what is said of each.

    said      of the N pictures; ``picture`` [N], the largest of each
    pieces    [N] their workpieces
    test      the P defects; of single scores each picture counts as one
    masks     [H,W] of each defect
    score     [P] of each defect: the largest within its label
    """

    samples: Sequence[Sample]
    said: Scores
    picture: Floats
    pieces: NDArray[np.int64]
    test: TestSet
    masks: Sequence[Mask]
    score: Floats

    @classmethod
    def of(cls, part: slice, material: _Material, said: Scores) -> _Group:
        samples, scores, pieces = material.samples[part], said[part], material.pieces[part]
        picture, maps = _largest(scores), scores[0].ndim > 0
        masks = [pieces_of(s.mask) if maps else [s.mask] for s in samples]
        found = [
            (i, float(mask.sum()), strength_in(s.image, mask) or 0.0, mask)
            for i, (s, own) in enumerate(zip(samples, masks, strict=True))
            for mask in own
        ]
        at, area, contrast, each = zip(*found, strict=True)
        of_defect = [float(np.max(scores[i][mask] if maps else scores[i])) for i, *_, mask in found]
        test = TestSet(
            tuple(s.path.name for s in samples),
            np.array([s.defect_type for s in samples]),
            pieces,
            np.array(at, np.int64),
            np.array(area),
            np.array(contrast),
        )
        return cls(samples, scores, picture, pieces, test, each, np.array(of_defect))

    @property
    def piece(self) -> NDArray[np.int64]:
        """[P]: the workpiece of each defect."""
        return self.pieces[self.test.picture]


def _defects(folder: Path, layout: str | None) -> list[Sample]:
    found = read_defects(folder, layout)
    samples = (
        found
        if isinstance(found, list)
        else found.read([item for item in found.items if item.defect_type != GOOD])
    )
    if not samples:
        raise InputError(f"{folder}: shows no defects with masks")
    return list(samples)


def _said(samples: Sequence[Sample], config: ThresholdConfig, out: Path) -> Scores:
    if config.detector:
        return scores_by(config.detector, samples, out, config.seed)
    assert config.scores is not None
    return read_scores(config.scores, samples)


def _card(
    material: _Material, groups: dict[str, _Group], said: Scores, config: ThresholdConfig
) -> tuple[dict[str, Any], dict[str, list[Sighting]]]:
    good = _largest(said[: material.good])
    good_pieces = material.pieces[: material.good]
    threshold = float(threshold_for(good, config.false_alarms)[0])
    drawn = threshold_for(good, config.false_alarms, resampled(good_pieces, config.seed, _DRAWS))
    low, high = np.quantile(drawn, (_OUTSIDE / 2, 1 - _OUTSIDE / 2))
    body: dict[str, Any] = {
        "format": "defectrt-threshold",
        "format_version": 1,
        "defectrt": __version__,
        "threshold": {"value": threshold, "low": float(low), "high": float(high)},
        "wanted_false_alarms": config.false_alarms,
        "false_alarms": _share(good >= threshold, good_pieces),
        "scored": "pictures" if said[0].ndim == 0 else "maps",
        "groups": {
            name: _at(group, threshold, config) | {"figures": _figures(group, material, said)}
            for name, group in groups.items()
        },
        "by_other_rules": list(_rules(good, good_pieces, groups, config)),
    }
    body["notes"] = [*material.notes, *_notes(body, good, good_pieces)]
    body["config"] = config.model_dump(mode="json")
    body["inputs"] = {
        "good": hashes_of(material.samples[: material.good]),
        **{name: hashes_of(group.samples) for name, group in groups.items()},
    }
    return body, {name: _sightings(group, threshold) for name, group in groups.items()}


def _at(group: _Group, threshold: float, config: ThresholdConfig) -> dict[str, Any]:
    """What is found at a threshold: of pictures, of defects, by thirds and by size and contrast."""
    hits, test = group.score >= threshold, group.test
    weights = resampled(group.pieces, config.seed, _DRAWS)[:, test.picture]
    curves = {
        "area": detection(test.area, hits, weights, config.found, logarithmic=True),
        "contrast": detection(test.contrast, hits, weights, config.found),
    }
    thirds = {name: _share(hits[part], group.piece[part]) for name, part in test.thirds().items()}
    return {
        "pictures": _share(group.picture >= threshold, group.pieces),
        "defects": _share(hits, group.piece),
        "thirds": {name: found for name, found in thirds.items() if found},
        "detection": {name: asdict(found) for name, found in curves.items() if found},
    }


def _share(hits: NDArray[np.bool_], pieces: NDArray[np.int64]) -> dict[str, Any] | None:
    """A share with its interval, as JSON has it; None of nothing."""
    found = rate(hits, pieces)
    return asdict(found) if found else None


def _rules(
    good: Floats,
    good_pieces: NDArray[np.int64],
    groups: dict[str, _Group],
    config: ThresholdConfig,
) -> Iterator[dict[str, Any]]:
    """Thresholds that defects would have given, synthetic and real ones, and what comes of each."""
    for name, group in groups.items():
        for rule, value in (
            ("best F1", best_f1_at(group.picture, good)),
            (f"finds {config.found:.0%}", threshold_finding(group.picture, config.found)),
        ):
            yield {
                "rule": rule,
                "from": name,
                "threshold": value,
                "false_alarms": _share(good >= value, good_pieces),
                "found": {o: _share(g.picture >= value, g.pieces) for o, g in groups.items()},
            }


def _notes(body: dict[str, Any], good: Floats, good_pieces: NDArray[np.int64]) -> Iterator[str]:
    wanted, pieces = body["wanted_false_alarms"], len(np.unique(good_pieces))
    if len(good) * wanted < 1:
        yield (
            f"{len(good)} good pictures cannot show that no more than {wanted:.2%} raise an alarm: "
            "the threshold lies just above all of them, and the true share may be up to "
            f"{body['false_alarms']['high']:.1%}. About {int(np.ceil(3 / wanted)):,} good pictures "
            "without an alarm would show it"
        )
    if pieces < len(good):
        yield f"the {len(good)} good pictures are of {pieces} workpieces, which is what counts"
    if "real" not in body["groups"]:
        yield (
            "no real defects are given: how well synthetic ones stand for them is not known here"
        )
        return
    made, real = (body["groups"][name]["defects"] for name in ("synthetic", "real"))
    gap = made["value"] - real["value"]
    reach = np.hypot(made["value"] - made["low"], real["high"] - real["value"])
    if gap < 0:
        reach = np.hypot(made["high"] - made["value"], real["value"] - real["low"])
    sure = "beyond" if abs(gap) > reach else "within"
    yield (
        f"synthetic defects are found {100 * abs(gap):.0f} points "
        f"{'more' if gap >= 0 else 'less'} often than real ones, {sure} what chance does"
        + ("; the card promises too much" if sure == "beyond" and gap > 0 else "")
    )


def _figures(group: _Group, material: _Material, said: Scores) -> dict[str, Any]:
    """The detector's figures on the good pictures and a group, with intervals."""
    samples = [*material.samples[: material.good], *group.samples]
    scores = [*said[: material.good], *group.said]
    pieces = np.concatenate([material.pieces[: material.good], group.pieces])
    weights = np.concatenate([np.ones((1, len(samples))), resampled(pieces, 0, _DRAWS)])
    test = test_set(samples, pieces.tolist())
    if scores[0].ndim == 0:
        of_images = image_levels(_largest(scores), test.types != GOOD, weights)
        counted = (auroc, average_precision, best_f1)
        return {
            name: _interval(figure(*of_images))
            for name, figure in zip(_OF_PICTURES, counted, strict=True)
        }
    tally = replace(tally_of(samples, _levelled(scores, samples)), image=_largest(scores))
    found = figures(test, tally, weights)
    return {name: _interval(found[name]) for name in (*_OF_PICTURES, *_OF_PIXELS)}


_OF_PICTURES = ("image_auroc", "image_ap", "image_f1")
_OF_PIXELS = ("pixel_auroc", "pixel_ap", "pixel_f1", "pro")


def _largest(scores: Scores) -> Floats:
    """[N]: the score of each picture."""
    return np.array([float(s.max()) for s in scores])


def _interval(values: Floats) -> dict[str, float]:
    low, high = np.nanquantile(values[1:], (_OUTSIDE / 2, 1 - _OUTSIDE / 2))
    return {"value": float(values[0]), "low": float(low), "high": float(high)}


def _levelled(maps: Scores, samples: Sequence[Sample]) -> Iterator[NDArray[np.float32]]:
    """Maps on the scale that is counted in levels: as many for defects' scores as for all others'.

    Figures depend on the order of scores alone.
    """
    rng = np.random.default_rng(0)
    inside = np.concatenate([m[s.mask] for m, s in zip(maps, samples, strict=True)])
    outside = np.concatenate(
        [rng.choice(m[~s.mask], _PIXELS) for m, s in zip(maps, samples, strict=True)]
    )
    edges = np.unique(np.concatenate([np.quantile(p, _QUANTILES) for p in (inside, outside)]))
    levels = np.linspace(-TOP, TOP, len(edges))
    for one in maps:
        yield np.asarray(np.interp(one, edges, levels), np.float32)


def _sightings(group: _Group, threshold: float) -> list[Sighting]:
    """The defects at the limit: the plainest that are missed, the faintest that are found."""
    plain = group.test.area * np.maximum(group.test.contrast, 0)
    hits, order = group.score >= threshold, np.argsort(plain)
    missed = [i for i in order[::-1] if not hits[i]][:_SHOWN]
    found = [i for i in order if hits[i]][:_SHOWN]
    return [
        Sighting(
            group.samples[group.test.picture[i]].image,
            group.masks[i],
            bool(hits[i]),
            float(group.test.area[i]),
            float(group.test.contrast[i]),
            float(group.score[i]),
        )
        for i in (*missed, *found)
    ]
