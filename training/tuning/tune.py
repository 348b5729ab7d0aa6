"""Choose how defects are painted and used: by the gain on held-out examples, within a budget."""

from __future__ import annotations

import hashlib
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defectrt.config.job import SynthesizerConfig
from defectrt.engines.manifest import read_manifest
from defectrt.errors import Cancelled, InputError, UsageError
from defectrt.masks.examples import read_examples
from defectrt.progress import Progress

from ..data.layouts import GOOD
from ..data.samples import Sample, read_good
from ..data.survey import is_directed
from ..proving.detector import Diet, logits, train_on
from ..proving.figures import average_precision, figures, tally_of, test_set
from ..proving.intervals import DRAWS, resampled
from ..proving.material import read_real
from ..proving.picking import far_apart, some
from ..proving.prove import one_core, workers_of
from ..proving.runs import Run, Runs, key_of
from ..proving.workpieces import workpieces
from .config import TuneConfig
from .painting import Painted, examples_in, paint
from .report import write_tuning
from .search import Score, search
from .settings import DEFAULTS, REAL, Setting, together, tried

__all__ = ["tune", "tune_on"]

#: Stands in every key: another way to score is another score.
_WAY = 1
#: Parts of the workpieces, each of which is held out once in a round.
_PARTS = 2


def tune(defects: Path, out: Path, config: TuneConfig, *, quiet: bool = False) -> Path:
    """Choose settings of an engine on those of ``defects`` that it has learned from.

    All others are left alone: they are there to test on. If it has learned from none of them, all
    are used. See `tune_on`.
    """
    real = read_real(defects, (), config.layout)
    learned = {entry.sha256 for entry in read_manifest(config.engine).provenance.dataset}
    own = [s for s in real if s.sha256() in learned]
    if not any(s.defect_type != GOOD for s in own):
        own = real
        print(
            "note: the engine has learned from none of these pictures; all of them choose, so "
            "test on others",
            file=sys.stderr,
        )
    elif len(own) < len(real) and not quiet:
        print(
            f"note: {len(real) - len(own)} pictures that the engine has not learned from are left "
            "alone, to test on",
            file=sys.stderr,
        )
    good = [s for folder in config.good for s in read_good(folder)]
    return tune_on([*own, *good], out, config, quiet=quiet)


def tune_on(
    samples: Sequence[Sample], out: Path, config: TuneConfig, *, quiet: bool = False
) -> Path:
    """Choose settings by the gain on held-out halves of ``samples``; see `TuneConfig`.

    Writes ``out``/tune.json with all that was tried, tune.html, and what was chosen as
    synthesize.yaml and prove.yaml. ``runs.jsonl`` there has a line a finished score, and the same
    call goes on after it was stopped; one with more minutes goes further. Returns
    ``out``/tune.json. Raises `InputError` for pictures that cannot be divided, and for an engine
    that does not make their types.
    """
    out.mkdir(parents=True, exist_ok=True)
    bench = Bench(samples, out, config)
    if not quiet:
        print(bench.told(), file=sys.stderr)
    settings = [DEFAULTS, *tried(bench.carried, healthy=bool(bench.healthy))]
    budget = 60 * config.budget
    with (
        one_core(),
        Progress(round(budget), "tune, seconds", quiet=quiet) as progress,
    ):

        def score(setting: Setting, number: int) -> Score:
            progress.update(min(round(budget), round(bench.seconds)), now=setting.name)
            return bench.score(setting, number)

        try:
            outcome = search(settings, score, budget, real=REAL, together=together)
        except KeyboardInterrupt as error:
            raise Cancelled("stopped; run the same command again to go on") from error
    return write_tuning(out, outcome, bench.record(), config)


class Bench:
    """All that is read, and what scores a setting.

    carried  what the engine says of masks, by type; empty if it was not learned from examples
    seconds  that the scores so far took
    """

    def __init__(self, samples: Sequence[Sample], out: Path, config: TuneConfig) -> None:
        """Divide the samples by workpiece. Raises as `tune_on` does."""
        self.config, self._out = config, out
        self._manifest = read_manifest(config.engine)
        self.carried = read_examples(config.engine)
        self.healthy = [s for folder in config.healthy for s in read_good(folder)]
        self.samples = list(samples)
        types = sorted({s.defect_type for s in samples} - {GOOD})
        if strange := [name for name in types if name not in self._manifest.defect_types]:
            raise UsageError(
                f"{config.engine}: does not make {', '.join(strange)}, but "
                f"{', '.join(self._manifest.defect_types)}"
            )
        pieces = workpieces([*samples, *self.healthy], config.group, config.near)
        self.pieces, healthy = pieces[: len(samples)], pieces[len(samples) :]
        self._part = _divide([s.defect_type for s in samples], self.pieces, config.seed)
        self._parts = [self._part[piece] for piece in self.pieces]
        self._healthy_parts = [self._part.get(piece) for piece in healthy]
        self.turn = not is_directed([s for s in samples if s.defect_type == GOOD])
        self._test = test_set(self.samples, self.pieces)
        self._runs = Runs(out)
        self._sets: dict[str, list[Painted]] = {}
        self.seconds = 0.0

    @cached_property
    def _weights(self) -> NDArray[np.float64]:
        plain = np.ones((1, len(self.samples)))
        return np.concatenate([plain, resampled(self.pieces, self.config.seed, DRAWS)])

    def told(self) -> str:
        """What will be done."""
        count = len({p for p, s in zip(self.pieces, self.samples, strict=True) if s.mask.any()})
        return (
            f"{count} workpieces with defects in two halves, each held out in turn; "
            f"{self.config.budget:g} minutes"
        )

    def score(self, setting: Setting, number: int) -> Score:
        """Pixel AP of all samples, each scored by the detector that has not learned from it."""
        key = self._key(setting, number)
        run = self._runs.get(key) or self._score(setting, number, key)
        self.seconds += run.seconds
        tally = self._runs.tally(key)
        positive = self._weights[:, self._test.picture] @ tally.positive
        values = average_precision(positive, self._weights @ tally.negative)
        return Score(float(values[0]), values[1:], run.seconds)

    def record(self) -> dict[str, Any]:
        """What went in, for the report."""
        shown = [s.defect_type for s in self.samples if s.defect_type != GOOD]
        return {
            "engine": self._manifest.fingerprint,
            "made_per_real": _PARTS * self.config.pictures * len(set(shown)) / len(shown),
            "pictures": {
                f"{s.defect_type}/{s.path.name}": {"sha256": s.sha256(), "half": part}
                for s, part in zip(self.samples, self._parts, strict=True)
            },
        }

    def _score(self, setting: Setting, number: int, key: str) -> Run:
        began, stop = time.monotonic(), threading.Event()
        scores: list[NDArray[np.float32] | None] = [None] * len(self.samples)
        with ThreadPoolExecutor(workers_of(self.config)) as pool:
            try:
                diets = [self._diet(setting, part, stop) for part in range(_PARTS)]
                waiting = [
                    pool.submit(self._held_out, diet, part, number, stop)
                    for part, diet in enumerate(diets)
                ]
                for one in waiting:
                    for i, found in one.result().items():
                        scores[i] = found
            except BaseException:
                stop.set()
                pool.shutdown(cancel_futures=True)
                raise
        tally = tally_of(self.samples, [s for s in scores if s is not None])
        values = figures(self._test, tally, np.ones((1, len(self.samples))))
        plain = {k: float(v[0]) if np.isfinite(v[0]) else None for k, v in values.items()}
        seconds = round(time.monotonic() - began, 1)
        run = Run(key, setting.name, 0, number, self.config.steps, seconds, (), plain)
        self._runs.add(run, tally)
        return run

    def _held_out(
        self, diet: Diet, part: int, number: int, stop: threading.Event
    ) -> dict[int, NDArray[np.float32]]:
        """The logits of the held-out part, by the sample's place."""
        seed = int(np.random.default_rng([self.config.seed, number, part]).integers(2**31))
        model = train_on(diet, self.config, seed, turn=self.turn, stopped=stop.is_set)
        return {
            i: logits(model, sample)
            for i, sample in enumerate(self.samples)
            if self._parts[i] == part
        }

    def _diet(self, setting: Setting, part: int, stop: threading.Event) -> Diet:
        own = [s for s, p in zip(self.samples, self._parts, strict=True) if p != part]
        good = [s for s in own if s.defect_type == GOOD]
        if setting.healthy:
            good += [s for s, p in zip(self.healthy, self._healthy_parts, strict=True) if p != part]
        real = [s for s in own if s.defect_type != GOOD]
        made = self._made(setting, own, part, stop) if setting.share else []
        return Diet(real, good, made, setting.share)

    def _made(
        self, setting: Setting, own: Sequence[Sample], part: int, stop: threading.Event
    ) -> list[Sample]:
        painted = self._painted(setting.painting, own, part, stop)
        samples = [one.mask if setting.label == "mask" else one.change for one in painted]
        count = max(1, round(setting.part * len(samples)))
        if count == len(samples):
            return samples
        if setting.far:
            return far_apart(samples, count)
        return some(samples, count, self.config.seed)

    def _painted(
        self, options: dict[str, Any], own: Sequence[Sample], part: int, stop: threading.Event
    ) -> list[Painted]:
        key = key_of({"options": options, "part": part} | self._painted_from)
        if key not in self._sets:
            config = SynthesizerConfig(engine=self.config.engine, seed=self.config.seed)
            self._sets[key] = paint(
                options,
                own,
                examples_in(own, self._manifest, self.carried),
                self._manifest,
                config,
                each=self.config.pictures,
                folder=self._out / "made" / key[:16],
                stop=stop,
            )
        return self._sets[key]

    @cached_property
    def _painted_from(self) -> dict[str, Any]:
        return {
            "way": _WAY,
            "engine": self._manifest.fingerprint,
            "samples": self._digest(self.samples),
            "parts": self._parts,
            "pictures": self.config.pictures,
            "seed": self.config.seed,
        }

    def _key(self, setting: Setting, number: int) -> str:
        detector = self.config.model_dump(include=_OF_DETECTOR, exclude_none=True)
        return key_of(
            self._painted_from
            | {
                "setting": asdict(setting),
                "round": number,
                "turn": self.turn,
                "detector": detector,
                "healthy": self._digest(self.healthy) if setting.healthy else "",
            }
        )

    def _digest(self, samples: Sequence[Sample]) -> str:
        whole = hashlib.sha256()
        for sample in samples:
            mask = hashlib.sha256(np.packbits(sample.mask).tobytes()).hexdigest()
            whole.update(f"{sample.sha256()} {sample.defect_type} {mask}\n".encode())
        return whole.hexdigest()


_OF_DETECTOR = {"steps", "window", "batch_size", "width", "backbone", "learning_rate"}


def _divide(types: Sequence[str], pieces: Sequence[int], seed: int) -> dict[int, int]:
    """The part of each workpiece; those of every type are dealt out in turn.

    Raises `InputError` for types, and good pictures, of too few workpieces.
    """
    shown: dict[int, set[str]] = defaultdict(set)
    for name, piece in zip(types, pieces, strict=True):
        shown[piece].add(name)
    by_type: dict[str, list[int]] = defaultdict(list)
    for piece, names in shown.items():
        by_type[min(names, key=lambda name: (name == GOOD, name))].append(piece)
    few = sorted(n for n in {*types, GOOD} if len(by_type[n]) < _PARTS)
    if few:
        raise InputError(
            f"{', '.join(few)}: pictures of {_PARTS} workpieces or more are needed, one half to "
            "learn from and one to measure on; give more, or say with --group what a workpiece is"
        )
    rng, part = np.random.default_rng([seed, 3]), {}
    for name in sorted(by_type):
        for i, piece in enumerate(rng.permutation(by_type[name]).tolist()):
            part[piece] = i % _PARTS
    return part
