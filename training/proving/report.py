"""``report.html``: the certificate for people, in one file that opens without a network."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from ..page import COLOURS, Line, bullets, curves, table, write_page

__all__ = ["write_report"]

_TITLE = "Do made defects help a detector?"
#: px of a plot, and of its margins.
_WIDTH, _ROW, _LEFT, _RIGHT = 760, 26, 250, 70
_MAIN = {
    "pixel_ap": "pixel AP",
    "pixel_f1": "pixel F1, best",
    "pro": "PRO, to 30 %",
    "image_auroc": "image AUROC",
}
_BESIDE = {"pixel_auroc": "pixel AUROC", "image_ap": "image AP", "image_f1": "image F1, best"}


def write_report(out: Path, proof: Mapping[str, Any]) -> None:
    """Write the page of a certificate. Raises `OutputError`."""
    write_page(out / "report.html", _TITLE, _body(proof))


def _body(proof: Mapping[str, Any]) -> Iterable[str]:
    for said in proof["verdicts"]:
        mark = {"helps": "good", "does not help": "bad"}.get(said["verdict"], "open")
        yield f'<section class="verdict {mark}"><h2>{escape(said["sentence"])}</h2>'
        yield bullets([*said["leakage_unknown"], *said["why"]]) + "</section>"
    yield f"<p>{escape(_tested(proof))}</p>" + bullets(proof["notes"])
    yield "<h2>Gain over real alone</h2>" + "".join(
        f"<h3>{label}</h3>" + _bars(proof, name) for name, label in _MAIN.items()
    )
    yield "<h2>Figures</h2>" + _table(proof, _MAIN) + _table(proof, _BESIDE)
    yield "<h2>Precision and recall of pixels</h2>" + _curves(proof)
    rest = [n for n in next(iter(proof["arms"].values()))["figures"] if n not in _MAIN | _BESIDE]
    yield "<h2>Errors at the best pixel F1</h2>" + _errors(proof)
    yield "<h2>By type, size and contrast: pixel AP</h2>" + _table(
        proof, {name: name.removeprefix("pixel_ap ") for name in rest}
    )
    yield "<h2>What they look like</h2>" + _looks(proof["looks"])
    config = json.dumps(proof["config"], indent=1)
    yield f"<details><summary>Configuration</summary><pre>{escape(config)}</pre></details>"
    yield f"<p class=soft>proof.json, SHA-256 of its content: {escape(proof['sha256'])}</p>"


def _tested(proof: Mapping[str, Any]) -> str:
    tests = [
        ", ".join(f"{count} {name}" for name, count in sorted(test["pictures"].items()))
        + f" pictures of {test['workpieces']} workpieces"
        for test in proof["test"]
    ]
    done = f"{proof['rounds']} of {proof['rounds_wanted']} rounds of all arms are finished."
    return f"Tested on {'; '.join(tests)}. {done} No workpiece is on both sides."


def _bars(proof: Mapping[str, Any], figure: str) -> str:
    """Each arm's difference to real alone as a bar, with its interval, in points."""
    gains = [g for g in proof["gains"] if g["over"] == "real alone" and figure in g["figures"]]
    ends = [
        v for g in gains for v in (g["figures"][figure][k] for k in ("low", "mean", "high")) if v
    ]
    low, high = min([0.0, *ends]), max([0.0, *ends])
    scale = (_WIDTH - _LEFT - _RIGHT) / max(high - low, 1e-6)

    def x(value: float) -> float:
        return round(_LEFT + (value - low) * scale, 1)

    rows = []
    for i, g in enumerate(gains):
        y, f = i * _ROW + 6, g["figures"][figure]
        left, right = sorted((x(0), x(f["mean"])))
        colour = _colour(proof, g["arm"])
        rows.append(
            f'<text x="{_LEFT - 8}" y="{y + 11}" text-anchor="end">{escape(g["arm"])}</text>'
            f'<rect x="{left}" y="{y}" width="{right - left:.1f}" height="14" fill="{colour}"/>'
        )
        if f["low"] is not None:
            rows.append(
                f'<path d="M{x(f["low"])} {y + 7}H{x(f["high"])}M{x(f["low"])} {y + 2}v10'
                f'M{x(f["high"])} {y + 2}v10" class="whisker"/>'
            )
        rows.append(f'<text x="{_WIDTH - _RIGHT + 8}" y="{y + 11}">{100 * f["mean"]:+.1f}</text>')
    height = len(gains) * _ROW + 8
    rows.append(f'<path d="M{x(0)} 0V{height}" class="zero"/>')
    return f'<svg viewBox="0 0 {_WIDTH} {height}" role="img">{"".join(rows)}</svg>'


def _curves(proof: Mapping[str, Any]) -> str:
    lines = [Line(name, arm["curve"], _colour(proof, name)) for name, arm in proof["arms"].items()]
    return curves(lines, "recall", "precision")


def _table(proof: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    return _by_arm(proof, labels, lambda arm, figure: _value(arm["figures"].get(figure)))


def _errors(proof: Mapping[str, Any]) -> str:
    labels = {
        "hit": "defects hit",
        "covered": "of a hit defect covered",
        "alarms": "good pictures with false alarms",
        "false_on_good": "of wrong pixels on good pictures",
    }
    return _by_arm(proof, labels, lambda arm, error: f"{arm['errors'][error]:.0%}")


def _by_arm(
    proof: Mapping[str, Any],
    labels: Mapping[str, str],
    told: Callable[[Mapping[str, Any], str], str],
) -> str:
    """A row an arm, a column a label."""
    rows = ([name, *(told(arm, key) for key in labels)] for name, arm in proof["arms"].items())
    return table(["", *labels.values()], rows)


def _value(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "–"
    if found["low"] is None:
        return f"{found['mean']:.3f}"
    return f"{found['mean']:.3f} <small>{found['low']:.3f} to {found['high']:.3f}</small>"


def _looks(groups: Mapping[str, Any]) -> str:
    """10th, 50th and 90th percentile of each measure."""
    rows = [
        [
            f"{group}, {kind}",
            *(" / ".join(f"{q:.3g}" for q in seen[m]) for m in ("area", "contrast", "halo")),
        ]
        for group, kinds in groups.items()
        for kind, seen in kinds.items()
        if isinstance(seen, Mapping)
    ]
    return table(["", "area, px", "contrast", "left outside label"], rows)


def _colour(proof: Mapping[str, Any], arm: str) -> str:
    return COLOURS[list(proof["arms"]).index(arm) % len(COLOURS)]
