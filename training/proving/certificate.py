"""``proof.json``: what was compared, how sure it is, what it means, and the hash of all of it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from defectrt import __version__
from defectrt.errors import NothingDoneError
from defectrt.files import write_whole

from ..data.layouts import GOOD
from ..data.samples import Sample
from .arms import CUT_PASTE, HEALTHY, REAL, Arm
from .config import ProveConfig
from .divisions import Sides
from .figures import Floats, TestSet, errors, figures, precision_recall
from .hints import few, looks, unlike
from .intervals import DRAWS, UNKNOWN, Gain, gain, resampled, verdict
from .material import MadeSet
from .networks import network_name
from .report import write_report
from .runs import Runs

__all__ = ["PROOF", "Evidence", "certificate", "write_certificate"]

PROOF = "proof.json"
#: Pixel AP of chance, the share of defect pixels, times this: below it nothing was learned.
_TIMES_CHANCE = 2
#: A difference of a kind of error that is worth naming.
_CLEARLY = 0.05
#: Points of a precision-recall curve in the certificate.
_POINTS = 64

Numbers = dict[str, tuple[float, Floats]]


@dataclass(frozen=True)
class Evidence:
    """Everything that a certificate is written from.

    unknown    what is not known of leakage through each set
    trainings  arm, split, seed and key of each, finished or not
    """

    config: ProveConfig
    sides: Sides
    tests: Sequence[TestSet]
    arms: Sequence[Arm]
    made: Sequence[MadeSet]
    unknown: Sequence[list[str]]
    trainings: Sequence[tuple[Arm, int, int, str]]
    runs: Runs

    @cached_property
    def numbers(self) -> dict[tuple[str, int, int], Numbers]:
        """Each finished training's figures: plain, and on test pictures drawn again.

        Of a split and seed only where every arm is finished, so that all are compared alike.
        """
        weights = [
            np.concatenate([np.ones((1, len(t.names))), resampled(t.workpieces, i, DRAWS)])
            for i, t in enumerate(self.tests)
        ]
        found = {}
        for arm, split, seed, key in self.whole:
            values = figures(self.tests[split], self.runs.tally(key), weights[split])
            found[arm.name, split, seed] = {n: (float(v[0]), v[1:]) for n, v in values.items()}
        return found

    @cached_property
    def whole(self) -> list[tuple[Arm, int, int, str]]:
        """The trainings of those splits and seeds of which every arm is finished."""
        rounds = Counter((s, r) for _, s, r, key in self.trainings if self.runs.get(key))
        return [t for t in self.trainings if rounds[t[1], t[2]] == len(self.arms)]

    @property
    def rounds(self) -> list[tuple[int, int]]:
        """Splits and seeds of which every arm is finished."""
        return sorted({(split, seed) for _, split, seed, _ in self.whole})


def certificate(evidence: Evidence) -> dict[str, Any]:
    """The certificate. Raises `NothingDoneError` if no round of all arms is finished."""
    if not evidence.rounds:
        raise NothingDoneError(
            "no seed of all arms is finished; run the same command again, or with more --budget"
        )
    made = [arm for arm in evidence.arms if arm.made is not None]
    gains = list(_gains(evidence, made))
    body: dict[str, Any] = {
        "format": "defectrt-proof",
        "format_version": 1,
        "defectrt": __version__,
        "verdicts": [_verdict(evidence, i, gains) for i in range(len(evidence.made))],
        "config": evidence.config.model_dump(mode="json"),
        "detector": evidence.config.detector or network_name(evidence.config),
        "rounds": len(evidence.rounds),
        "rounds_wanted": len(evidence.trainings) // len(evidence.arms),
        "test": [_test(test) for test in evidence.tests],
        "arms": {arm.name: _arm(evidence, arm) for arm in evidence.arms},
        "gains": gains,
        "looks": _looks(evidence),
        "notes": [*evidence.sides.notes, *_cut_short(evidence)],
        "inputs": _inputs(evidence),
        "trainings": [key for *_, key in evidence.whole],
    }
    text = json.dumps(body, sort_keys=True, allow_nan=False)
    return body | {"sha256": hashlib.sha256(text.encode()).hexdigest()}


def write_certificate(out: Path, body: dict[str, Any]) -> Path:
    """Write proof.json and the page beside it; returns the former."""
    text = json.dumps(body, indent=1, allow_nan=False) + "\n"
    write_whole(out / PROOF, text.encode())
    write_report(out, body)
    return out / PROOF


def _gains(evidence: Evidence, made: Sequence[Arm]) -> Iterator[dict[str, Any]]:
    """Every arm's differences to real alone, and those of made sets to cut-paste."""
    for arm in evidence.arms:
        if arm.name == REAL:
            continue
        over = (REAL, CUT_PASTE) if arm in made else (REAL,)
        for other in over:
            own, base = _runs_of(evidence, arm.name), _runs_of(evidence, other)
            found = {
                name: asdict(_difference(own, base, name, len(made) if arm in made else 1))
                for name in own[0]
                if _known(own, name) and _known(base, name)
            }
            yield {"arm": arm.name, "over": other, "figures": found}


def _runs_of(evidence: Evidence, arm: str) -> list[Numbers]:
    return [evidence.numbers[arm, split, seed] for split, seed in evidence.rounds]


def _difference(own: list[Numbers], base: list[Numbers], name: str, compared: int) -> Gain:
    pairs = [(a[name], b[name]) for a, b in zip(own, base, strict=True)]
    values = [a[0] - b[0] for a, b in pairs]
    return gain(values, [a[1] - b[1] for a, b in pairs], compared=compared)


def _known(runs: list[Numbers], name: str) -> bool:
    return all(name in run and np.isfinite(run[name][0]) for run in runs)


def _verdict(evidence: Evidence, index: int, gains: list[dict[str, Any]]) -> dict[str, Any]:
    """Of one set: its best arm by pixel AP, what the interval says, and why it may be so."""
    names = [arm.name for arm in evidence.arms if arm.made == index]
    own = [g for g in gains if g["arm"] in names and g["over"] == REAL]
    best = max(own, key=lambda g: g["figures"]["pixel_ap"]["mean"])
    found = Gain(**best["figures"]["pixel_ap"])
    learned = _anything_learned(evidence)
    said = verdict(found, evidence.config.worth) if learned else UNKNOWN
    beside = [Gain(**best["figures"]["image_auroc"])]
    beside += [
        Gain(**g["figures"]["pixel_ap"])
        for g in gains
        if g["arm"] == best["arm"] and g["over"] == CUT_PASTE
    ]
    return {
        "set": evidence.made[index].name,
        "arm": best["arm"],
        "verdict": said,
        "sentence": _sentence(best["arm"], said, found, *beside),
        "leakage_unknown": evidence.unknown[index],
        "why": [] if said == "helps" else list(_why(evidence, index)),
    }


def _sentence(arm: str, said: str, ap: Gain, auroc: Gain, over_cut_paste: Gain) -> str:
    return (
        f"{arm}: {said}. Over real alone, with {_trainings(ap.runs)} of each, pixel AP changes by "
        f"{_points(ap)} points and image AUROC by {_points(auroc)}; over cut-paste pixel AP by "
        f"{_points(over_cut_paste)}."
    )


def _trainings(count: int) -> str:
    return "1 training" if count == 1 else f"{count} trainings"


def _points(found: Gain) -> str:
    """A difference of shares in points, with its interval."""
    if found.low is None or found.high is None:
        return f"{100 * found.mean:+.1f} (one training tells no interval)"
    return f"{100 * found.mean:+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f})"


def _anything_learned(evidence: Evidence) -> bool:
    """Whether any arm finds defect pixels clearly more often than chance does."""
    tallies = [evidence.runs.tally(key) for *_, key in evidence.whole]
    positive, negative = (
        sum(int(side.sum()) for side in sides)
        for sides in zip(*((t.positive, t.negative) for t in tallies), strict=True)
    )
    best = max(
        np.mean([run["pixel_ap"][0] for run in _runs_of(evidence, arm.name)])
        for arm in evidence.arms
    )
    return bool(best >= _TIMES_CHANCE * positive / (positive + negative))


def _why(evidence: Evidence, index: int) -> Iterator[str]:
    if not _anything_learned(evidence):
        yield "no detector learned to find defects; train longer with --steps"
    if len(evidence.rounds) < 3:
        yield f"{_trainings(len(evidence.rounds))} of each arm hardly tell their scatter"
    for test in evidence.tests[:1]:
        yield from few(test)
    yield from _worse(evidence, index)
    real = [s for s in evidence.sides.divisions[0].train if s.defect_type != GOOD]
    yield from unlike(looks(real), looks([p.sample for p in evidence.made[index].pictures]))


def _worse(evidence: Evidence, index: int) -> Iterator[str]:
    """In which kind of error a set's arms are clearly worse than real alone."""
    base = _errors(evidence, evidence.arms[0])
    for arm in (arm for arm in evidence.arms if arm.made == index):
        own = _errors(evidence, arm)
        for name, sign, text in (
            ("hit", -1, "fewer defects are hit"),
            ("covered", -1, "less of a defect is covered"),
            ("alarms", 1, "more good pictures have false alarms"),
        ):
            if sign * (own[name] - base[name]) > _CLEARLY:
                yield f"{arm.name}: {text} ({own[name]:.0%}, real alone {base[name]:.0%})"


def _arm(evidence: Evidence, arm: Arm) -> dict[str, Any]:
    own = _runs_of(evidence, arm.name)
    finished = [
        run
        for a, _, _, key in evidence.whole
        if a == arm and (run := evidence.runs.get(key)) is not None
    ]
    return {
        "share": arm.share,
        "per_real": arm.per_real,
        "healthy": arm.name == HEALTHY,
        "steps": [run.steps for run in finished],
        "figures": {
            name: asdict(gain([r[name][0] for r in own], [r[name][1] for r in own], least=0.0))
            for name in own[0]
            if _known(own, name)
        },
        "errors": _errors(evidence, arm),
        "curve": _curve(evidence, arm),
    }


def _errors(evidence: Evidence, arm: Arm) -> dict[str, float]:
    """Mean over the trainings."""
    found = [
        errors(evidence.tests[split], evidence.runs.tally(key))
        for a, split, _, key in evidence.whole
        if a == arm
    ]
    return {name: float(np.mean([one[name] for one in found])) for name in found[0]}


def _curve(evidence: Evidence, arm: Arm) -> list[tuple[float, float]]:
    """Recall and precision, the trainings' histograms together, at even recalls."""
    tallies = [evidence.runs.tally(key) for a, _, _, key in evidence.whole if a == arm]
    positive, negative = (
        np.sum([side.sum(axis=0) for side in sides], axis=0)[None].astype(float)
        for sides in ([t.positive for t in tallies], [t.negative for t in tallies])
    )
    precision, recall = precision_recall(positive, negative)
    at = np.linspace(recall[0, 0], 1, _POINTS)
    return [
        (float(r), float(p))
        for r, p in zip(at, np.interp(at, recall[0], precision[0]), strict=True)
    ]


def _cut_short(evidence: Evidence) -> Iterator[str]:
    """Trainings that ended at the most steps, not because held-out pictures stopped improving."""
    config = evidence.config
    finished = [evidence.runs.get(key) for *_, key in evidence.whole]
    late = config.steps - config.patience * config.check_every
    count = sum(run is not None and run.steps > late for run in finished)
    if count and not config.detector and not config.frozen:
        yield (
            f"{count} of {len(finished)} trainings were cut off at {config.steps} steps, before "
            "held-out pictures stopped improving; with more --steps the arms may stand otherwise"
        )


def _test(test: TestSet) -> dict[str, Any]:
    return {
        "pictures": dict(Counter(test.types.tolist())),
        "workpieces": len(set(test.workpieces.tolist())),
        "defects": dict(Counter(test.types[test.picture].tolist())),
    }


def _looks(evidence: Evidence) -> dict[str, Any]:
    division = evidence.sides.divisions[0]
    groups: dict[str, Sequence[Sample]] = {"real, train": division.train}
    groups |= {m.name: [p.sample for p in m.pictures] for m in evidence.made}
    found: dict[str, Any] = {
        name: {kind: seen.quantiles() for kind, seen in looks(samples).items()}
        for name, samples in groups.items()
    }
    for made in evidence.made:
        if made.labels:
            share = [float(q) for q in np.quantile(made.labels, (0.1, 0.5, 0.9))]
            found[made.name]["label of what visibly changed"] = share
    return found


def _inputs(evidence: Evidence) -> dict[str, Any]:
    """Names and hashes of all pictures."""
    return {
        "splits": [
            {"train": _hashes(d.train), "test": _hashes(d.test)} for d in evidence.sides.divisions
        ],
        "made": {m.name: _hashes([p.sample for p in m.pictures]) for m in evidence.made},
    }


def _hashes(samples: Sequence[Sample]) -> dict[str, str]:
    return {f"{s.defect_type}/{s.path.name}": s.sha256() for s in samples}
