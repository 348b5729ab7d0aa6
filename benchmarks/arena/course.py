"""The course of an arena: folds, engines, made sets, trainings, the rows of the table."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from defectrt.engines.loading import BUNDLED_ENGINE
from defectrt.engines.manifest import read_manifest
from defectrt.errors import Cancelled, DefectRTError, InputError, NothingDoneError
from defectrt.files import write_whole
from defectrt.training.data.dataset import read_defects
from defectrt.training.data.layouts import GOOD
from defectrt.training.proving.arms import REAL
from defectrt.training.proving.material import read_made, read_real
from defectrt.training.proving.prove import Bench, Training, told_of, train_all
from defectrt.training.proving.runs import Runs
from defectrt.training.sheet import Row as Shown
from defectrt.training.sheet import sheet

from ..gpu.conditions import commit
from .anomaly import COST, settings_of
from .config import ArenaConfig, Row, slug
from .folds import write_folds
from .judged import Finding, Judge
from .makers import LEARN, LEARN_NAIVE, MAKERS
from .outside import reached
from .steps import Cost, Step, do, environment
from .table import BY_TYPE, GAINS, PLAIN, WITH, Line, costs, span

__all__ = ["Course"]

#: Pictures a row in a sheet.
_SHOWN = 10


@dataclass
class _Made:
    """A row's set on one fold."""

    folder: Path
    cost: Cost | None = None
    engine: Path | None = None
    learned: Cost | None = None


@dataclass
class Course:
    """One arena in one folder; every step that is finished there is not done again.

    failed  rows that could not be made, and why; they are left out
    """

    config: ArenaConfig
    out: Path
    quiet: bool = False
    failed: dict[str, str] = field(default_factory=dict)

    def run(self) -> list[Line]:
        """Do what is left and return the table's rows. Raises `Cancelled` at Ctrl-C."""
        self.out.mkdir(parents=True, exist_ok=True)
        made = {fold: dict(self._made(fold)) for fold in range(len(self.folds))}
        self._sheets(made)
        trainings = list(self._trainings(made))
        runs = Runs(self.out)
        self._train(trainings, runs)
        lines = self._lines(trainings, runs, made)
        if not lines:
            raise NothingDoneError("no training is finished; run the same command again")
        return lines

    @cached_property
    def folds(self) -> list[Path]:
        """Their folders, written first where a dataset is named."""
        config, folds = self.config, self.config.folds or self.out / "folds"
        if config.dataset and not folds.is_dir():
            found = read_defects(config.dataset, config.layout)
            wanted = {*config.types, GOOD} if config.types else {i.defect_type for i in found.items}
            samples = found.read([i for i in found.items if i.defect_type in wanted])
            part = self.out / "folds.part"
            how = {"shots": config.shots, "good": config.good}
            write_folds(samples, part, groups=(config.group, config.near), **how)
            part.rename(folds)
        found_folds = sorted(p for p in folds.glob("[0-9]*") if p.is_dir())
        for fold in found_folds:
            if lack := [n for n in ("shots", "good", "test") if not (fold / n).is_dir()]:
                raise InputError(f"{fold}: lacks {', '.join(lack)}; see benchmarks/arena/folds.py")
        if not found_folds:
            raise InputError(f"{folds}: holds no folds 0, 1 …; see benchmarks/arena/folds.py")
        return found_folds

    @property
    def _rows(self) -> dict[str, Row]:
        """Those that have not failed."""
        return {name: row for name, row in self.config.rows.items() if name not in self.failed}

    def _made(self, fold: int) -> Iterator[tuple[str, _Made]]:
        """Each row's set of made pictures, made now if it is not there."""
        for name, row in self._rows.items():
            if row.detect:
                self._check(name, row)
                continue
            self._say(f"fold {fold}: {name}")
            try:
                yield name, self._make(name, row, fold)
            except Cancelled:
                raise
            except DefectRTError as error:
                self.failed[name] = f"fold {fold}: {error}"
                self._say(f"  left out: {error}")

    def _check(self, name: str, row: Row) -> None:
        """Leave out an anomaly detector that cannot run here."""
        try:
            _asked(row)
            reached("anomalib", "timm")
        except DefectRTError as error:
            self.failed[name] = str(error)

    def _make(self, name: str, row: Row, fold: int) -> _Made:
        if row.folder:
            folder = Path(row.folder.format(fold=fold, folds=self.folds[fold].parent))
            if not folder.is_dir():
                raise InputError(f"{folder}: no such folder")
            return _Made(folder)
        engine, learned = self._engine(row.engine, fold)
        settings = dict(row.settings) | ({"engine": str(engine)} if engine else {})
        place = self.out / "made" / str(fold) / slug(name)
        fingerprint = read_manifest(engine).fingerprint if engine else ""
        seed, count = self.config.seed, self.config.count
        step = Step(
            *(MAKERS[row.make or ""], self.folds[fold], place, count, seed),
            limit=row.shots,
            settings=settings,
            engine=fingerprint,
        )
        return _Made(place, do(step), engine, learned)

    def _engine(self, name: str | None, fold: int) -> tuple[Path | None, Cost | None]:
        """A row's engine on a fold, and what learning it took, if it was learned here."""
        if name is None:
            return None, None
        spec = self.config.engines.get(name)
        if spec is None:
            return Path(name), None
        if spec.built:
            if fold >= len(spec.built) or not spec.built[fold].is_dir():
                raise InputError(f"engine {name}: none is built for fold {fold}")
            return spec.built[fold], None
        place = self.out / "engines" / str(fold) / slug(name)
        call, fingerprint, settings = LEARN, "", dict[str, Any]()
        if spec.naive_of:
            call, (ours, _) = LEARN_NAIVE, self._engine(spec.naive_of, fold)
            settings = {"engine": str(ours)}
            fingerprint = read_manifest(ours or BUNDLED_ENGINE).fingerprint
        elif spec.steps:
            settings = {"steps": spec.steps}
        given = (call, self.folds[fold], place, 1, self.config.seed)
        return place, do(Step(*given, spec.shots, settings, fingerprint))

    def _sheets(self, made: dict[int, dict[str, _Made]]) -> None:
        """Real defects beside each row's, enlarged: a picture a fold."""
        for fold, sets in made.items():
            place = self.out / f"sheet-{fold}.png"
            real = [s for s in read_real(self.folds[fold] / "shots") if s.mask.any()]
            rows, rng = list[Shown](), np.random.default_rng(self.config.seed)
            for name, own in sets.items():
                samples = [p.sample for p in read_made(own.folder).pictures]
                some = [samples[i] for i in rng.permutation(len(samples))[:_SHOWN]]
                cells = [[(s.image, s.mask) for s in these] for these in (real[:_SHOWN], some)]
                rows.append(Shown(name, *cells))
            if rows:
                write_whole(place, sheet(rows))

    def _trainings(
        self, made: dict[int, dict[str, _Made]]
    ) -> Iterator[tuple[str, int, Bench, Training]]:
        """Row, fold and what to train: seed by seed, so that what is finished early compares."""
        every = [
            (row, fold, bench, training)
            for fold in made
            for row, bench, training in self._of_fold(fold, made[fold])
        ]
        places = ["real alone", *self.config.rows]
        yield from sorted(every, key=lambda t: (t[3].seed, t[1], places.index(t[0])))

    def _of_fold(self, fold: int, made: dict[str, _Made]) -> Iterator[tuple[str, Bench, Training]]:
        place = self.folds[fold]
        kept = {name: own for name, own in made.items() if name not in self.failed}
        given = {"good": (place / "good",), "held_out": place / "test"}
        engines = tuple({own.engine for own in kept.values() if own.engine})
        folders = tuple(own.folder for own in kept.values())
        proof = self.config.proof(**given, synthetic=folders, engine=engines)
        bench = Bench(place / "shots", proof)
        names = list(kept)
        self._say(f"fold {fold}: {told_of(bench.tests[0])}")
        for training in bench.trainings:
            if training.arm.name == REAL:
                yield REAL, bench, training
            elif training.arm.made is not None:
                yield names[training.arm.made], bench, training
        for name, row in self._rows.items():
            if row.detect:
                command = f"{sys.executable} -m benchmarks.arena.anomaly {_asked(row)}"
                bench = Bench(place / "shots", self.config.proof(**given, detector=command))
                for training in bench.trainings:
                    if training.arm.name == REAL:
                        yield name, bench, training

    def _train(self, all_of_them: Sequence[tuple[str, int, Bench, Training]], runs: Runs) -> None:
        left = {t.key: (bench, t) for _, _, bench, t in all_of_them if runs.get(t.key) is None}
        if not left:
            return
        nets = [bench for bench, _ in left.values() if not bench.config.detector]
        workers = self.config.proof().workers or os.cpu_count() or 1
        minutes = nets[0].seconds(len(nets)) / workers / 60 if nets else 0.0
        self._say(
            f"{len(left)} of {len(all_of_them)} trainings are left: {len(nets)} of our own, at "
            f"most {minutes:.0f} minutes, and {len(left) - len(nets)} of anomaly detectors"
        )
        os.environ |= {COST: str(self.out / "anomaly.jsonl")} | environment()
        train_all([*left.values()], runs, self.out, self.config.proof(), quiet=self.quiet)

    def _lines(
        self,
        trainings: Sequence[tuple[str, int, Bench, Training]],
        runs: Runs,
        made: dict[int, dict[str, _Made]],
    ) -> list[Line]:
        """A line of the CSV for every row of which any training is finished."""
        tests = {fold: bench.tests[0] for _, fold, bench, _ in trainings}
        done = [
            Finding(name, fold, t.seed, t.key)
            for name, fold, _, t in trainings
            if runs.get(t.key) is not None
        ]
        judge = Judge([tests[fold] for fold in sorted(tests)], done, runs)
        common = {
            "dataset": self.config.name,
            **{f"test_{k}": str(v) for k, v in vars(judge.tested()).items()},
            "count": str(self.config.count),
            "detector": json.dumps(self.config.detector, sort_keys=True),
            "cpus": str(os.cpu_count()),
            "machine": platform.machine(),
            "torch": version("torch"),
            "commit": commit(),
        }
        lines = []
        for name in (REAL, *self.config.rows):
            rounds = judge.rounds(name)
            if not rounds:
                continue
            line = common | {"row": name, "trainings": str(len(rounds))}
            line["folds"] = str(len({fold for fold, _ in rounds}))
            for figure in WITH:
                line |= span(figure, judge.figure(name, figure))
            for column, (base, figure) in GAINS.items():
                line |= span(column, judge.over(name, base, figure))
            line |= {f: f"{judge.figure(name, f).mean:.4f}" for f in PLAIN}
            by_type = judge.by_type(name).items()
            line[BY_TYPE] = "; ".join(f"{kind} {ap:.3f}" for kind, ap in by_type)
            took = [runs.get(f.key) for f in done if f.row == name]
            line["train_s"] = f"{np.mean([run.seconds for run in took if run]):.0f}"
            lines.append(line | self._costs(name, made))
        return lines

    def _costs(self, name: str, made: dict[int, dict[str, _Made]]) -> Line:
        """What making took, mean of the folds; of an anomaly detector, what training it took."""
        own = [sets[name] for sets in made.values() if name in sets]
        found = {}
        if own:
            counts = [len(read_made(one.folder).pictures) for one in own]
            found["made"] = f"{np.mean(counts):.0f}"
        row = self.config.rows.get(name)
        learned = [one.learned for one in own]
        making = [one.cost for one in own]
        if row is not None and row.detect:
            making = list(self._told_by(row))
        return found | costs("make", _mean(making)) | costs("engine", _mean(learned))

    def _told_by(self, row: Row) -> Iterator[Cost]:
        place = self.out / "anomaly.jsonl"
        for text in place.read_text(encoding="utf-8").splitlines() if place.exists() else ():
            told = json.loads(text)
            if told["detector"] == _asked(row, ""):
                yield Cost(told["seconds"], told["cpu_s"], told["peak_mib"])

    def _say(self, text: str) -> None:
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)


def _asked(row: Row, places: str = "{data} {out} {seed}") -> str:
    """A detector's name, its places and its settings, as its command line has them."""
    name = row.detect or ""
    settings_of(name, row.settings)
    parts = [f"{k}={shlex.quote(str(v))}" for k, v in sorted(row.settings.items())]
    return " ".join(part for part in (name, places, *parts) if part)


def _mean(found: Sequence[Cost | None]) -> Cost | None:
    known = [vars(cost) for cost in found if cost]
    if not known:
        return None
    return Cost(**{k: round(float(np.mean([one[k] for one in known])), 1) for k in known[0]})
