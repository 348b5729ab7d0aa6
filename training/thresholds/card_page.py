"""``report.html`` of a threshold, for people."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from defectrt.images.preview import enlarged
from defectrt.images.types import Bits, Mask
from defectrt.images.window import place_window

from ..page import COLOURS, Line, bullets, curves, figure, table, write_page

__all__ = ["Sighting", "share", "write_card_page"]

_TITLE = "The threshold of a detector"
_COLOUR = {"synthetic": COLOURS[2], "real": COLOURS[1]}
#: px around a defect, and of a cell.
_AROUND, _CELL = 48, 128
_FIGURES = {
    "image_auroc": "image AUROC",
    "image_ap": "image AP",
    "image_f1": "image F1, best",
    "pixel_auroc": "pixel AUROC",
    "pixel_ap": "pixel AP",
    "pixel_f1": "pixel F1, best",
    "pro": "PRO, to 30 %",
}
_SIZES = {"area": "area, px", "contrast": "contrast to what is around it"}


@dataclass(frozen=True)
class Sighting:
    """A defect at the limit, in its picture [H,W,C] under its mask [H,W]."""

    image: Bits
    mask: Mask
    found: bool
    area: float
    contrast: float
    score: float


def write_card_page(
    path: Path, card: Mapping[str, Any], sightings: Mapping[str, Sequence[Sighting]]
) -> None:
    """Write the page of a card. Raises `OutputError`."""
    write_page(path, _TITLE, _parts(card, sightings))


def share(found: Mapping[str, Any] | None) -> str:
    """A share with its interval, in per cent."""
    if found is None:
        return "–"
    return f"{found['value']:.1%} ({100 * found['low']:.1f} to {100 * found['high']:.1f})"


def _parts(card: Mapping[str, Any], sightings: Mapping[str, Sequence[Sighting]]) -> Iterator[str]:
    t = card["threshold"]
    yield (
        f'<section class="verdict"><h2>Alarm from {t["value"]:.9g} on</h2>'
        f"<p>{t['low']:.6g} to {t['high']:.6g} on good pictures drawn again, for at most "
        f"{card['wanted_false_alarms']:.2%} false alarms.</p>" + bullets(card["notes"])
    ) + "</section>"
    yield "<h2>At this threshold</h2>" + _rates(card)
    yield "<h2>By size and by contrast</h2>" + _thirds(card)
    for size, label in _SIZES.items():
        yield f"<h3>Chance of detection by {label}, with the band that holds 95 %</h3>"
        yield _detection(card, size, label)
    yield "<h2>The threshold that defects would have given</h2>" + _rules(card)
    yield "<h2>The detector</h2>" + _figures(card)
    for name, found in sightings.items():
        yield from _limits(name, found)
    config = json.dumps(card["config"], indent=1)
    yield f"<details><summary>Configuration</summary><pre>{escape(config)}</pre></details>"


def _rates(card: Mapping[str, Any]) -> str:
    rows = [["good pictures with an alarm", *_counted(card["false_alarms"])]]
    for name, group in card["groups"].items():
        rows.append([f"{name} pictures found", *_counted(group["pictures"])])
        rows.append([f"{name} defects found", *_counted(group["defects"])])
    return table(["", "share", "of", "on workpieces"], rows)


def _counted(found: Mapping[str, Any]) -> list[str]:
    return [share(found), str(found["count"]), str(found["workpieces"])]


def _thirds(card: Mapping[str, Any]) -> str:
    groups = card["groups"]
    names = list(dict.fromkeys(n for g in groups.values() for n in g["thirds"]))
    rows = [[n, *(share(g["thirds"].get(n)) for g in groups.values())] for n in names]
    return table(["thirds of each", *groups], rows)


def _detection(card: Mapping[str, Any], size: str, label: str) -> str:
    lines, marks, told = [], [], []
    for name, group in card["groups"].items():
        found = group["detection"].get(size)
        if found is None:
            told.append(f"{name}: all are of one {size}")
            continue
        edges = (list(zip(found["x"], found[k], strict=True)) for k in ("chance", "low", "high"))
        lines.append(Line(name, next(edges), _COLOUR[name], next(edges), next(edges)))
        if found["limit"] is not None:
            marks.append((found["limit"], f"{name} {found['limit']:.3g}"))
        told.append(f"{name}: {_limit(found, card['config']['found'])}")
    plot = curves(lines, label, "chance of detection", logarithmic=size == "area", marks=marks)
    return (plot if lines else "") + bullets(told)


def _limit(found: Mapping[str, Any], wanted: float) -> str:
    if found["limit"] is None:
        return f"{wanted:.0%} is reached nowhere, or everywhere, within what was tested"
    sure = "beyond what was tested" if found["sure"] is None else f"{found['sure']:.3g}"
    return f"{wanted:.0%} are found from {found['limit']:.3g} on; with 95 % confidence from {sure}"


def _rules(card: Mapping[str, Any]) -> str:
    groups = list(card["groups"])
    at, t = {n: card["groups"][n]["pictures"] for n in groups}, card["threshold"]["value"]
    chosen = {"rule": "false alarms", "from": "good pictures", "threshold": t, "found": at}
    rows = [
        [
            f"{r['rule']}, from {r['from']}",
            f"{r['threshold']:.9g}",
            share(r["false_alarms"]),
            *(share(r["found"][n]) for n in groups),
        ]
        for r in (chosen | {"false_alarms": card["false_alarms"]}, *card["by_other_rules"])
    ]
    return table(["", "threshold", "false alarms", *(f"{n} found" for n in groups)], rows)


def _figures(card: Mapping[str, Any]) -> str:
    groups = card["groups"]
    rows = [
        [
            label,
            *(
                f"{g['figures'][n]['value']:.3f} <small>{g['figures'][n]['low']:.3f} to "
                f"{g['figures'][n]['high']:.3f}</small>"
                for g in groups.values()
            ),
        ]
        for n, label in _FIGURES.items()
        if all(n in g["figures"] for g in groups.values())
    ]
    return table(["on good pictures and", *groups], rows)


def _limits(name: str, sightings: Sequence[Sighting]) -> Iterator[str]:
    for found, label in (
        (False, "the plainest that are missed"),
        (True, "the least that are found"),
    ):
        own = [s for s in sightings if s.found == found]
        if own:
            yield f"<h3>Limit samples, {name}: {label}</h3><div>"
            yield "".join(figure(_shown(s), _caption(s)) for s in own) + "</div>"


def _shown(s: Sighting) -> Any:
    return enlarged(s.image, s.image, place_window(s.mask, _AROUND, 8), _CELL)


def _caption(s: Sighting) -> str:
    return f"{s.area:.0f} px, contrast {s.contrast:.2f}, score {s.score:.3g}"
