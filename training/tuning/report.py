"""What a tuning says: ``tune.json``, its page, and what was chosen as files for other commands."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

from defectrt import __version__
from defectrt.config.yaml import write_yaml
from defectrt.files import write_whole

from ..page import bullets, table, write_page
from ..proving.intervals import Gain
from ..proving.networks import network_name
from .config import TuneConfig
from .search import Outcome
from .settings import DEFAULTS, REAL, Setting

__all__ = ["PROVE", "SYNTHESIZE", "TUNING", "write_tuning"]

TUNING, SYNTHESIZE, PROVE = "tune.json", "synthesize.yaml", "prove.yaml"
_CAVEATS = (
    "The engine has learned from the examples that are held out here: gains over real alone are "
    "larger than on pictures that it has not seen. Settings are compared on one engine, which is "
    "fairer, but not free of it. What made pictures are worth, defectrt prove says, on others.",
    "Detectors here learn from half of the examples, and from fewer made pictures than a whole set "
    "has: with all of them the best share and number may be others.",
)


def write_tuning(
    out: Path, outcome: Outcome[Setting], inputs: Mapping[str, Any], config: TuneConfig
) -> Path:
    """Write all of it; returns ``out``/tune.json."""
    body: dict[str, Any] = {
        "format": "defectrt-tuning",
        "format_version": 1,
        "defectrt": __version__,
        "sentence": _sentence(outcome),
        "caveats": _CAVEATS,
        "chosen": _told(outcome.chosen),
        "better_than_defaults": outcome.chosen != DEFAULTS,
        "best_in_choosing": _told(outcome.best) if outcome.best else None,
        "confirmed": _gain(outcome.confirmed),
        "chosen_over_real": _gain(outcome.over_real),
        "detector": network_name(config),
        "trials": [
            _told(trial.setting)
            | {
                "pixel_ap": {str(n): value for n, value in trial.values.items()},
                "gain": _gain(trial.gain),
                "fresh_pixel_ap": {str(n): value for n, value in trial.fresh.items()},
            }
            for trial in outcome.trials
        ],
        "untried": [setting.name for setting in outcome.untried],
        "seconds": round(outcome.seconds, 1),
        "config": config.model_dump(mode="json"),
        "inputs": inputs,
    }
    for name, values in (
        (SYNTHESIZE, _for_synthesis(outcome.chosen, config)),
        (PROVE, _for_proof(outcome.chosen, config, inputs["made_per_real"])),
    ):
        write_whole(out / name, write_yaml(values).encode())
    write_page(out / "tune.html", "Which settings help a detector most?", _page(body))
    text = json.dumps(body, indent=1, allow_nan=False) + "\n"
    write_whole(out / TUNING, text.encode())
    return out / TUNING


def _for_synthesis(chosen: Setting, config: TuneConfig) -> dict[str, Any]:
    options = {k: list(v) if isinstance(v, tuple) else v for k, v in chosen.synthesis.items()}
    return {"engine": str(config.engine.resolve())} | options


def _for_proof(chosen: Setting, config: TuneConfig, per_real: float) -> dict[str, Any]:
    found: dict[str, Any] = {"engine": str(config.engine.resolve()), "share": chosen.share}
    if chosen.part < 1:
        found |= {"per_real": max(1, round(chosen.part * per_real))}
    if chosen.far:
        found |= {"pick": "far"}
    if chosen.healthy:
        found |= {"healthy": [str(path.resolve()) for path in config.healthy]}
    return found


def _told(setting: Setting) -> dict[str, Any]:
    return {"name": setting.name, "changes": setting.changes if setting != REAL else {}}


def _gain(found: Gain | None) -> dict[str, Any] | None:
    return asdict(found) if found else None


def _sentence(outcome: Outcome[Setting]) -> str:
    tried = len(outcome.trials) - 2
    if outcome.best is None:
        return f"The defaults stay: none of {max(0, tried)} other settings did better in choosing."
    what = f"{outcome.best.name}: best of {tried} in choosing"
    if outcome.confirmed is None:
        return (
            f"The defaults stay: there was no time to confirm the best setting ({what}); give more "
            "minutes."
        )
    points = f"{_points(outcome.confirmed)} points of pixel AP over the defaults in fresh rounds"
    if outcome.chosen == DEFAULTS:
        return f"The defaults stay: {what}, and {points}, which is within the noise."
    return f"Chosen is {what}, and {points}."


def _points(found: Mapping[str, Any] | Gain) -> str:
    one = found if isinstance(found, Gain) else Gain(**found)
    if one.low is None or one.high is None:
        return f"{100 * one.mean:+.1f}"
    return f"{100 * one.mean:+.1f} ({100 * one.low:+.1f} to {100 * one.high:+.1f})"


def _page(body: Mapping[str, Any]) -> Iterator[str]:
    mark = "good" if body["better_than_defaults"] else "open"
    yield f'<section class="verdict {mark}"><h2>{escape(body["sentence"])}</h2>'
    yield bullets(body["caveats"]) + "</section>"
    if body["chosen_over_real"]:
        yield (
            "<p>What is chosen, over real alone in fresh rounds: "
            f"{escape(_points(body['chosen_over_real']))} points of pixel AP, seen with the first "
            "caveat.</p>"
        )
    yield "<h2>What was tried</h2>" + table(
        ["setting", "pixel AP, by round", "points over the defaults", "pixel AP, fresh rounds"],
        [
            [
                trial["name"],
                escape(_row(trial["pixel_ap"])),
                "" if trial["name"] == DEFAULTS.name else escape(_points(trial["gain"])),
                escape(_row(trial["fresh_pixel_ap"])),
            ]
            for trial in body["trials"]
        ],
    )
    if body["untried"]:
        yield "<p>No time for: " + escape("; ".join(body["untried"])) + "</p>"
    yield f"<p class=soft>{escape(body['detector'])}; {body['seconds'] / 60:.0f} minutes.</p>"
    config = json.dumps(body["config"], indent=1)
    yield f"<details><summary>Configuration</summary><pre>{escape(config)}</pre></details>"


def _row(values: Mapping[str, float]) -> str:
    return ", ".join(f"{value:.3f}" for value in values.values())
