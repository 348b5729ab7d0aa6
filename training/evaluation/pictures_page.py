"""``report.html`` of made pictures beside real ones, for people."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from defectrt.images.preview import enlarged
from defectrt.images.types import Bits, Mask
from defectrt.images.window import Window

from ..page import COLOURS, Line, bullets, curves, figure, table, write_page

__all__ = ["Neighbour", "leakage", "write_pictures_page"]

_TITLE = "Made defects beside real ones"
_REAL, _MADE = COLOURS[0], COLOURS[2]
#: Side of a cell, px.
_CELL = 128
_LABELS = {
    "area": "area of the label, px",
    "contrast": "contrast to what is around it",
    "halo": "contrast left just outside the label",
}

Cell = tuple[Bits, Mask, Window]


@dataclass(frozen=True)
class Neighbour:
    """A made defect, and the training and the real one nearest to it; each image, mask, window."""

    made: Cell
    training: Cell | None
    real: Cell
    distance: float


def write_pictures_page(
    path: Path, body: Mapping[str, Any], neighbours: Mapping[str, Sequence[Neighbour]]
) -> None:
    """Write the page of an evaluation. Raises `OutputError`."""
    write_page(path, _TITLE, _parts(body, neighbours))


def leakage(figures: Mapping[str, Any]) -> str:
    """How near made defects are to those that were learned from, in a few words."""
    near = figures.get("nearest")
    if near is None:
        return "not known"
    return f"{near['nearer_than_any_real']:.0%} nearer than any real one"


def _parts(body: Mapping[str, Any], neighbours: Mapping[str, Sequence[Neighbour]]) -> Iterator[str]:
    yield f"<p>{escape(str(body.get('made', '')))}</p>" + bullets(body["notes"])
    for name, found in body["types"].items():
        yield f"<h2>{escape(name)}</h2><p>{escape(_counts(found))}</p>"
        for network, figures in found["networks"].items():
            yield f"<h3>Seen by {escape(network)}; compare with figures of no other network</h3>"
            yield _seen(figures)
        yield "<h3>Can a classifier tell them apart? Share of right guesses, chance is 50 %</h3>"
        yield _told_apart(found["told_apart"])
        for measure, label in _LABELS.items():
            looks = found["looks"][measure]
            yield (
                f"<h3>{label}: {looks['distance']:.2f} standard deviations of the real ones "
                "apart</h3>" + _distribution(looks, label, measure)
            )
        yield from _neighbours(neighbours.get(name, ()), found)
    for network in body["networks"]:
        yield f"<p class=soft>{escape(network['name'])}: SHA-256 {network['sha256']}</p>"
    config = json.dumps(body["config"], indent=1)
    yield f"<details><summary>Configuration</summary><pre>{escape(config)}</pre></details>"


def _counts(found: Mapping[str, Any]) -> str:
    learned = found["training"]
    known = "what they were learned from is not given"
    if learned is not None:
        known = f"{learned} that they were learned from"
    return (
        f"{found['made']} made pictures, {found['real']} real ones of {found['real_workpieces']} "
        f"workpieces, {known}; a window of {found['window']} px around each defect."
    )


def _seen(figures: Mapping[str, Any]) -> str:
    """A line a figure, and beside each how near made defects are to what was learned from."""
    near, rows = escape(leakage(figures)), []
    if "kid" in figures:
        k, f = figures["kid"], figures["fid"]
        chance = k["halves_of_real"]
        shown = "–" if chance is None else f"halves: below {chance:.3f}"
        rows.append(["KID, the one to read", _span(k), shown, near])
        few = f"of {f['each']} each, see above"
        rows.append(["FID", f"{f['value']:.1f}", few, near])
    if "diversity" in figures:
        around = figures["clusters"]
        rows.append(
            ["Diversity", _span(figures["diversity"]), _span(figures["diversity_of_real"]), near]
        )
        told = f"around {around['count']} {around['around']} ones"
        rows.append(
            ["Diversity within clusters (IC)", _span(figures["diversity_within"]), told, near]
        )
    return table(["", "made", "real", "near training"], rows) + _near(figures)


def _near(figures: Mapping[str, Any]) -> str:
    near = figures.get("nearest")
    if near is None:
        return ""
    made, real = ([f"{value:.3f}" for value in near[side]] for side in ("made", "real"))
    rows = [["made", *made], ["real", *real]]
    head = ["Distance to the nearest that was learned from", "least", "10 %", "median", "90 %"]
    return table(head, rows)


def _span(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "–"
    return f"{found['value']:.3f} <small>{found['low']:.3f} to {found['high']:.3f}</small>"


def _told_apart(found: Mapping[str, Any]) -> str:
    labels = {
        "defects": "made against real defects",
        "beside": "windows beside them: what the surfaces give away",
        "real": "real against real: what chance looks like",
    }
    rows = [
        [label, "too few" if (shares := found[key]) is None else _shares(shares)]
        for key, label in labels.items()
    ]
    return table(["", "median, 10th to 90th percentile of draws"], rows)


def _shares(shares: Sequence[float]) -> str:
    low, middle, high = shares
    return f"{middle:.0%} <small>{low:.0%} to {high:.0%}</small>"


def _distribution(looks: Mapping[str, Any], label: str, measure: str) -> str:
    """How many are below each value, of real and of made."""
    lines = [
        Line(f"{name}, {len(looks[name])}", _steps(looks[name]), colour)
        for name, colour in (("real", _REAL), ("made", _MADE))
    ]
    return curves(lines, label, "share below", logarithmic=measure == "area")


def _steps(values: Iterable[float]) -> list[tuple[float, float]]:
    ordered = np.sort(list(values))
    count = len(ordered)
    return [
        point
        for i, value in enumerate(ordered)
        for point in ((float(value), i / count), (float(value), (i + 1) / count))
    ]


def _neighbours(found: Sequence[Neighbour], about: Mapping[str, Any]) -> Iterator[str]:
    if not found:
        return
    known = about["training"] is not None
    yield "<h3>The made defects nearest to " + (
        "those that were learned from, turned or mirrored: copies would look alike</h3>"
        if known
        else "real ones</h3>"
    )
    for n in found:
        cells = [figure(_shown(n.made), f"made, distance {n.distance:.3f}")]
        if n.training is not None:
            cells.append(figure(_shown(n.training), "nearest that was learned from"))
        cells.append(figure(_shown(n.real), "nearest real"))
        yield f"<div class=row>{''.join(cells)}</div>"


def _shown(cell: Cell) -> Any:
    image, _, window = cell
    return enlarged(image, image, window, _CELL)
