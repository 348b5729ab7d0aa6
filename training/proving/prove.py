"""From real pictures and made ones to a certificate: divide, train every arm, test, say."""

from __future__ import annotations

import hashlib
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from defectrt.cores import cores
from defectrt.errors import Cancelled, InputError, UsageError
from defectrt.progress import Progress

from ..data.layouts import GOOD
from ..data.samples import Sample, read_good
from ..data.survey import is_directed
from .arms import CUT_PASTE, HEALTHY, Arm, arms, cut_paste
from .certificate import Evidence, certificate, write_certificate
from .command import parts_of, scored
from .config import DetectorConfig, ProveConfig
from .detector import Curve, Diet, fit, logits, speed
from .divisions import Division, Sides, divide, fit_for, unknown_leaks
from .figures import TestSet, figures, tally_of, test_set
from .frozen import WAYS
from .material import MadeSet, read_made, read_real
from .picking import far_apart, some
from .runs import Run, Runs, key_of

__all__ = ["Bench", "Training", "one_core", "prove", "told_of", "train_all", "workers_of"]

#: Stands in every key: another way to train is another training.
_WAY = 1
#: The share of each type's workpieces that is held out to end a training, and good ones at most.
_HELD, _HELD_GOOD = 4, 8
#: Cut-paste pictures a real one.
_PASTED = 40


@dataclass(frozen=True)
class Training:
    """One detector to be trained."""

    arm: Arm
    split: int
    seed: int
    key: str


def prove(defects: Path, out: Path, config: ProveConfig, *, quiet: bool = False) -> Path:
    """Find out whether made pictures help a detector on real ``defects``; see `ProveConfig`.

    Writes ``out``/proof.json and ``out``/report.html; ``runs.jsonl`` there has a line a finished
    training, and the same call goes on after it was stopped. Returns ``out``/proof.json. Raises
    `InputError` for input that cannot be used, and for made pictures that have seen the test side.
    """
    if not config.synthetic:
        raise UsageError("--synthetic: needed; a folder of made defects to be compared")
    bench = Bench(defects, config)
    runs = Runs(out)
    left = {t.key: t for t in bench.trainings if runs.get(t.key) is None}
    todo = list(left.values())  # arms with the same pictures are one training
    _tell(bench, todo, quiet)
    if todo:
        train_all([(bench, t) for t in todo], runs, out, config, quiet=quiet)
    evidence = Evidence(
        config=config,
        sides=bench.sides,
        tests=bench.tests,
        arms=bench.arms,
        made=bench.made,
        unknown=[bench.unknown(made) for made in bench.made],
        trainings=[(t.arm, t.split, t.seed, t.key) for t in bench.trainings],
        runs=runs,
    )
    return write_certificate(out, certificate(evidence))


class Bench:
    """All that is read, and what is to be trained: every arm, split and seed.

    tests  what is to be found on the test side of each split
    """

    def __init__(self, defects: Path, config: ProveConfig) -> None:
        """Read and divide; raises `InputError` as `prove` does."""
        self.config = config
        if config.detector:
            parts_of(config.detector)
        self.real = read_real(defects, config.good, config.layout)
        held_out = read_real(config.held_out) if config.held_out else None
        self._given = {s.sha256() for s in (*self.real, *(held_out or ()))}
        self.made: list[MadeSet] = [read_made(path, config.engine) for path in config.synthetic]
        self.healthy = [s for folder in config.healthy for s in read_good(folder)]
        self.sides: Sides = divide(
            self.real,
            held_out,
            self.made,
            groups=config.group,
            near=config.near,
            splits=config.splits,
            seed=config.seed,
        )
        self.arms = arms(config, _names(self.made))
        good = [s for s in self.real if s.defect_type == GOOD]
        self.turn = not is_directed(good or self.real)
        self.tests = [test_set(d.test, d.test_pieces) for d in self.sides.divisions]
        self._digests: dict[int, str] = {}

    @cached_property
    def trainings(self) -> list[Training]:
        """Seed by seed, so that whatever is finished early can be compared."""
        return [
            Training(arm, split, seed, self._key(arm, split, seed))
            for seed in range(self.config.seeds)
            for split in range(len(self.sides.divisions))
            for arm in self.arms
        ]

    def seconds(self, count: int) -> float:
        """How long ``count`` trainings of the own detector take at most, one after another."""
        with one_core():
            step, pixel = speed(self.real, self.config)
        tested = max(_pixels(d.test) for d in self.sides.divisions)
        if not self.config.frozen:
            return count * (2 * self.config.steps * step + tested * pixel)
        made = (p.sample for own in self.made for p in own.pictures)
        seen = tested + WAYS * (_pixels(self.real) + _pixels(made))
        return seen * pixel + count * self.config.steps * step

    def unknown(self, made: MadeSet) -> list[str]:
        """What cannot be known of leakage through a set, a sentence each."""
        return unknown_leaks(made, self._given)

    def train(self, t: Training, runs: Runs, stop: threading.Event) -> None:
        """Train, test, write down."""
        began = time.monotonic()
        division, seed = self.sides.divisions[t.split], self.config.seed + t.seed
        scores, steps, curve = self._detect(t.arm, t.split, seed, stop)
        tally = tally_of(division.test, scores)
        values = figures(self.tests[t.split], tally, np.ones((1, len(division.test))))
        plain = {name: _finite(float(v[0])) for name, v in values.items()}
        seconds = round(time.monotonic() - began, 1)
        run = Run(t.key, t.arm.name, t.split, t.seed, steps, seconds, curve, plain)
        runs.add(run, tally)

    def _detect(
        self, arm: Arm, split: int, seed: int, stop: threading.Event
    ) -> tuple[Iterable[NDArray[np.float32]], int, Curve]:
        """The logits of the test pictures, the steps that were trained, the held-out curve."""
        division, command = self.sides.divisions[split], self.config.detector
        if command:
            diet = self._diet(arm, split, division.train, seed)
            train = [*diet.good, *diet.real, *diet.made]
            return scored(command, train, division.test, seed, stop.is_set), 0, ()
        learned, held_out = _hold_out(division, seed)
        diet = self._diet(arm, split, learned, seed)
        found = fit(diet, held_out, self.config, seed, turn=self.turn, stopped=stop.is_set)
        return (logits(found.model, s) for s in division.test), found.steps, found.curve

    def _diet(self, arm: Arm, split: int, learned: Sequence[Sample], seed: int) -> Diet:
        real = [s for s in learned if s.defect_type != GOOD]
        good = [s for s in learned if s.defect_type == GOOD]
        made = self._made(arm, split, len(real))
        if arm.name == CUT_PASTE:
            made = cut_paste(real, good, _PASTED * len(real), seed)
        if arm.name == HEALTHY:
            good = good + self.healthy
        return Diet(real, good, made, arm.share)

    def _made(self, arm: Arm, split: int, real: int) -> list[Sample]:
        if arm.made is None:
            return []
        samples = self._fit[arm.made, split]
        if arm.per_real:
            count, seed = arm.per_real * real, self.config.seed
            samples = (
                far_apart(samples, count)
                if self.config.pick == "far"
                else some(samples, count, seed)
            )
        return samples

    @cached_property
    def _fit(self) -> dict[tuple[int, int], list[Sample]]:
        """Of each set and split, the pictures that have nothing of the test side."""
        return {
            (i, k): self._fit_of(made, division)
            for i, made in enumerate(self.made)
            for k, division in enumerate(self.sides.divisions)
        }

    def _fit_of(self, made: MadeSet, division: Division) -> list[Sample]:
        samples = [p.sample for p in fit_for(made, division, self.sides.by_looks)]
        if not samples:
            raise InputError(
                f"{made.name}: every picture was made on one of the test side; make some on other "
                "good pictures, or test on --held-out"
            )
        return samples

    def _key(self, arm: Arm, split: int, seed: int) -> str:
        division, config = self.sides.divisions[split], self.config
        real = sum(s.defect_type != GOOD for s in division.train)
        return key_of(
            {
                "way": _WAY,
                "arm": arm.name if arm.made is None else "made",
                "share": arm.share,
                "seed": config.seed + seed,
                "turn": self.turn,
                "train": self._digest(division.train),
                "train_pieces": division.train_pieces,
                "test": self._digest(division.test),
                "made": self._digest(self._made(arm, split, real)),
                "healthy": self._digest(self.healthy if arm.name == HEALTHY else ()),
                "detector": config.model_dump(include=_OF_DETECTOR, exclude_none=True),
            }
        )

    def _digest(self, samples: Sequence[Sample]) -> str:
        """Of the pictures, their types and their masks."""
        whole = hashlib.sha256()
        for sample in samples:
            if id(sample) not in self._digests:
                mask = hashlib.sha256(np.packbits(sample.mask).tobytes()).hexdigest()
                self._digests[id(sample)] = f"{sample.sha256()} {sample.defect_type} {mask}\n"
            whole.update(self._digests[id(sample)].encode())
        return whole.hexdigest()


_OF_DETECTOR = {
    "detector",
    "steps",
    "check_every",
    "patience",
    "window",
    "batch_size",
    "width",
    "backbone",
    "frozen",
    "learning_rate",
}


def _names(made: Sequence[MadeSet]) -> list[str]:
    """Of the sets, each once: where two have the same, with a number."""
    names = [m.name or "made" for m in made]
    return [f"{n} {i + 1}" if names.count(n) > 1 else n for i, n in enumerate(names)]


def _hold_out(division: Division, seed: int) -> tuple[list[Sample], list[Sample]]:
    """The train side in two: to learn from, and to end the training on; workpieces stay whole."""
    rng = np.random.default_rng([seed, 2])
    by_type: dict[str, list[int]] = {}
    for sample, piece in zip(division.train, division.train_pieces, strict=True):
        own = by_type.setdefault(sample.defect_type, [])
        own += [piece] if piece not in own else []
    held: set[int] = set()
    for name, pieces in sorted(by_type.items()):
        wanted = len(pieces) // 2 if len(pieces) < _HELD else len(pieces) // _HELD
        limit = min(wanted, _HELD_GOOD) if name == GOOD else wanted
        held |= set(rng.permutation(pieces)[:limit].tolist())
    sides: tuple[list[Sample], list[Sample]] = ([], [])
    for sample, piece in zip(division.train, division.train_pieces, strict=True):
        sides[piece in held].append(sample)
    return sides


def _tell(bench: Bench, todo: Sequence[Training], quiet: bool) -> None:
    """What will be done, what is known of leakage, and how long it takes at most."""
    for made in bench.made:
        for text in bench.unknown(made):
            print(f"warning: {text}", file=sys.stderr)
    if quiet:
        return
    for note in bench.sides.notes:
        print(f"note: {note}", file=sys.stderr)
    for test in bench.tests:
        print(told_of(test), file=sys.stderr)
    if todo and bench.config.detector:
        print(
            f"{len(todo)} trainings by --detector; how long one takes is not known", file=sys.stderr
        )
    elif todo:
        seconds = bench.seconds(len(todo)) / workers_of(bench.config)
        budget = bench.config.budget
        print(
            f"{len(todo)} of {len(bench.trainings)} trainings are left: at most "
            f"{seconds / 60:.0f} minutes" + (f"; none is begun after {budget:g}" if budget else ""),
            file=sys.stderr,
        )


def _pixels(samples: Iterable[Sample]) -> int:
    return sum(s.mask.size for s in samples)


def told_of(test: TestSet) -> str:
    """What a test side holds, in words."""
    kinds = ", ".join(
        f"{(test.types == name).sum()} {name}" for name in sorted(set(test.types.tolist()))
    )
    return f"tested on {kinds} pictures of {len(set(test.workpieces.tolist()))} workpieces"


def train_all(
    todo: Sequence[tuple[Bench, Training]],
    runs: Runs,
    out: Path,
    config: ProveConfig,
    *,
    quiet: bool,
) -> None:
    """Train what is left, ``config.workers`` side by side; begin none after ``config.budget``.

    Raises `Cancelled` at Ctrl-C; what is finished by then is in ``runs``.
    """
    stop, began = threading.Event(), time.monotonic()
    budget = config.budget

    def one(bench: Bench, training: Training) -> bool:
        if stop.is_set() or (budget and time.monotonic() - began > 60 * budget):
            return False
        bench.train(training, runs, stop)
        return True

    out.mkdir(parents=True, exist_ok=True)
    workers = workers_of(config)
    with (
        one_core(),
        ThreadPoolExecutor(workers) as pool,
        Progress(len(todo), "prove", quiet=quiet) as progress,
    ):
        progress.update(0)
        waiting = [pool.submit(one, *each) for each in todo]
        try:
            for done, finished in enumerate(_in_turn(waiting), 1):
                if finished:
                    left = (time.monotonic() - began) / done * (len(todo) - done)
                    progress.update(done, left=f"{left / 60:.0f} min")
        except BaseException as error:
            stop.set()
            pool.shutdown(cancel_futures=True)
            if isinstance(error, KeyboardInterrupt):
                raise Cancelled("stopped; run the same command again to go on") from error
            raise


def _in_turn(waiting: Sequence[Future[bool]]) -> Iterator[bool]:
    for future in as_completed(waiting):
        yield future.result()


def workers_of(config: DetectorConfig) -> int:
    """Trainings side by side."""
    return config.workers or cores()


@contextmanager
def one_core() -> Iterator[None]:
    """Every training has one core, and the same figures whatever else runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
