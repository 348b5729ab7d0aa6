"""The stages of one fold of one category: learn, make, measure, prove; each gives rows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from defectrt.export.build import build
from defectrt.export.graphs import Onnx
from defectrt.export.learn import learn
from defectrt.files import write_directory
from defectrt.images.png import encode_png
from defectrt.masks.examples import SHAPES_FILE
from defectrt.masks.reading import read_any_mask
from defectrt.output.records import MANIFEST, read_finished
from defectrt.synthesis.job import synthesize
from defectrt.training.bundled import open_base
from defectrt.training.config import TrainConfig
from defectrt.training.data.dataset import read_defects
from defectrt.training.data.layouts import GOOD
from defectrt.training.data.samples import Sample, read_good
from defectrt.training.evaluation.config import PicturesConfig
from defectrt.training.evaluation.pictures import evaluate_pictures
from defectrt.training.loop.runs import device_of
from defectrt.training.loop.train import train
from defectrt.training.proving.arms import CUT_PASTE, REAL
from defectrt.training.proving.material import read_real
from defectrt.training.proving.prove import prove
from defectrt.training.record import read_record

from .. import tray
from .config import MASKS, NAIVE, OURS, UNSEEN, PaperConfig
from .landscape import landscape
from .material import FOLDS, LOCO, Category, divide
from .plane import told
from .rows import Row, figures_of
from .sheet import write_sheet

_FIGURES = ("image_auroc", "image_ap", "image_f1", "pixel_auroc", "pixel_ap", "pixel_f1", "pro")


@dataclass(frozen=True)
class Stage:
    """A part of the work that is done once: its name, and what does it and gives its rows."""

    name: str
    run: Callable[[], Iterable[Row]]


def stages(found: list[Category], config: PaperConfig, *, quiet: bool) -> list[Stage]:
    """All stages in their order: what the main tables need comes first, of all categories."""
    works = [Fold(category, number, config, quiet) for category in found for number in FOLDS]
    ablated = [work for work in works if work.is_ablated]
    first = works[0]
    others = [(work, name) for work in works for name in config.others]
    return [
        *(Stage(f"divide {c.dataset}/{c.name}", _dividing(c, config)) for c in found),
        *(work.stage("learn", work.learn) for work in works),
        *(work.stage("make", work.make) for work in works),
        *(work.stage("measure", lambda w=work: w.measure(OURS)) for work in works),
        *(
            work.stage(f"measure {name}", lambda w=work, n=name: w.measure(n))
            for work, name in others
        ),
        *(work.stage("count", work.count) for work in works if work.category.drawn),
        *(work.stage("prove", work.prove) for work in works),
        first.stage("landscape", first.landscape),
        *(work.stage("unseen", work.unseen) for work in works),
        *(work.stage("naive", work.naive) for work in ablated),
        *(work.stage("sheet", work.sheet) for work in works),
    ]


def _dividing(category: Category, config: PaperConfig) -> Callable[[], Iterable[Row]]:
    def run() -> Iterable[Row]:
        divide(category, config)
        return ()

    return run


@dataclass(frozen=True)
class Fold:
    """One fold of a category, and all that is done with it."""

    category: Category
    number: int
    config: PaperConfig
    quiet: bool

    @property
    def folder(self) -> Path:
        return self.category.fold(self.number)

    @property
    def is_ablated(self) -> bool:
        chosen = self.config.ablation
        return not self.category.logical if chosen is None else self.category.name in chosen

    def stage(self, name: str, run: Callable[[], Iterable[Row]]) -> Stage:
        return Stage(f"{name} {self.category.dataset}/{self.category.name}/{self.number}", run)

    def engine(self, method: str) -> Path:
        return self.folder / "engines" / method

    def made(self, method: str) -> Path:
        """A method's pictures; others' lie where the configuration says."""
        if other := self.config.others.get(method):
            return Path(other.format(category=self.category.name, fold=self.number))
        return self.folder / "made" / method

    def learn(self) -> Iterable[Row]:
        """An engine by Eq. 5 from the fold's shots."""
        out, folder = self.engine(OURS), self.folder
        if not out.exists():
            logical = self.category.logical
            learn(
                folder / ("loco" if logical else "shots"),
                None if logical else folder / GOOD,
                out=out,
                layout=LOCO if logical else None,
                **self._learning(),
            )
        return ()

    def make(self) -> Iterable[Row]:
        """So many instances a type on good pictures of the fold, and the same labelled by masks."""
        self._synthesize(OURS, self.folder / GOOD)
        if not self.made(MASKS).exists():
            label_by_masks(self.made(OURS), self.made(MASKS))
        return ()

    def unseen(self) -> Iterator[Row]:
        """The same on good pictures of the other side, which the model has never seen."""
        self._synthesize(UNSEEN, self.category.fold(1 - self.number) / GOOD)
        yield from self.measure(UNSEEN)

    def naive(self) -> Iterator[Row]:
        """L′ in place of Eq. 5: the same base, pictures, steps and masks."""
        self._learn_naive()
        self._synthesize(NAIVE, self.folder / GOOD)
        yield from self.measure(NAIVE)

    def measure(self, method: str) -> Iterator[Row]:
        """FID, KID and perceptual distances of a set beside real ones of the test side."""
        own = self.category.config
        config = PicturesConfig(
            real=(self.folder / "test",),
            training=(self.folder / "shots",),
            network=self.config.networks,
            most=self.config.instances,
            group=own.group,
            near=own.near,
            seed=self.config.seed,
        )
        out = self.folder / "evaluation" / method
        body = evaluate_pictures(self.made(method), config, out=out, quiet=self.quiet)
        for name, found in body["types"].items():
            counts = {"type": name, "made": found["made"], "tested": found["real"]}
            for network, seen in found["networks"].items():
                for figure, value in figures_of(seen):
                    row = self._row("pictures", method, figure, **value)
                    yield replace(row, network=network, **counts)

    def prove(self) -> Iterator[Row]:
        """Detectors on real pictures alone, with cut-paste, with every set; tested on the rest."""
        own, sets = self.category.config, [OURS, MASKS, *self.config.others]
        config = self.config.proving(
            synthetic=tuple(self.made(method) for method in sets),
            good=(self.folder / GOOD,),
            engine=(self.engine(OURS),),
            held_out=self.folder / "test",
            group=own.group,
            near=own.near,
        )
        path = prove(self.folder / "shots", self.folder / "proof", config, quiet=self.quiet)
        proof = json.loads(path.read_bytes())
        own_arms = [arm for arm in proof["arms"] if arm not in (REAL, CUT_PASTE)]
        names = dict(zip(own_arms, sets, strict=True))
        test = proof["test"][0]
        tested = sum(n for name, n in test["pictures"].items() if name != GOOD)
        for arm, found in proof["arms"].items():
            for figure in _FIGURES:
                if (value := found["figures"].get(figure)) is None:
                    continue
                ends = {"low": value["low"], "high": value["high"]}
                row = self._row("detectors", names.get(arm, arm), figure, value["mean"], **ends)
                yield replace(row, tested=tested)

    def count(self) -> Iterator[Row]:
        """What a counter, which knows nothing of the model, says of made trays."""
        dataset = read_finished(self.made(OURS))
        for name in self.category.types(self.number):
            own = [entry for entry in dataset.entries if entry.defect == name]
            right = sum(tray.verdict(dataset, entry) == "right" for entry in own)
            row = self._row("counter", OURS, "right", right / max(1, len(own)))
            yield replace(row, type=name, made=len(own))

    def sheet(self) -> Iterable[Row]:
        """Figure 3: the same masks on the same pictures, by each loss."""
        sets = [OURS, NAIVE] if self.is_ablated else [OURS]
        write_sheet([self.made(name) for name in sets], self.folder / "sheet.png")
        return ()

    def landscape(self) -> Iterator[Row]:
        """Figure 4, around the weights that Eq. 5 ended with."""
        how, out = self.config.landscape, self.folder / "landscape"
        run = self.engine(OURS).with_name(f"{OURS}-run")
        body = landscape(
            run,
            self.folder / "shots",
            out,
            points=how.points,
            span=how.span,
            rows=how.rows,
            seed=self.config.seed,
            device=device_of(self.config.device),
            quiet=self.quiet,
        )
        for objective, found in body["shapes"].items():
            for figure, value in told(found):
                yield self._row("landscape", objective, figure, value)

    def _learning(self) -> dict[str, Any]:
        config = self.config
        return {
            "model": config.model,
            "steps": self.category.config.steps or config.steps,
            "preview_every": 0,
            "device": config.device,
            "threads": config.threads,
            "seed": config.seed,
            "quiet": self.quiet,
        }

    def _learn_naive(self) -> None:
        config, out = self.config, self.engine(NAIVE)
        if out.exists():
            return
        ours, run = self.engine(OURS), out.with_name(f"{NAIVE}-run")
        ours_run = ours.with_name(f"{OURS}-run")
        chosen = TrainConfig(**read_record(ours_run).config)
        learned, held_out = self._sides(ours_run)
        if not (run / "model").is_dir():
            train(
                open_base(config.model),
                learned,
                chosen.model_copy(update={"objective": "denoise", "guidance": 1.0}),
                run,
                base_model=config.model or "bundled",
                resume=True,
                checkpoint_every=50,
                held_out=held_out,
                device=device_of(config.device),
                quiet=self.quiet,
            )
        build(
            run,
            out,
            Onnx(half_weights=True),
            beside=lambda folder: shutil.copy(ours / SHAPES_FILE, folder),
            quiet=self.quiet,
        )

    def _sides(self, run: Path) -> tuple[list[Sample], list[Sample]]:
        """What a run has learned from, and what it held back, in the order of `learn`."""
        samples = [*read_good(self.folder / GOOD), *read_real(self.folder / "shots")]
        if self.category.logical:
            found = read_defects(self.folder / "loco", LOCO)
            samples = found if isinstance(found, list) else found.samples()
        held = set(json.loads((run / "plan.json").read_bytes())["held_out"])
        sides: tuple[list[Sample], list[Sample]] = ([], [])
        for sample in sorted(samples, key=lambda s: (s.defect_type == GOOD, s.defect_type)):
            sides[f"{sample.defect_type}/{sample.path.name}" in held].append(sample)
        return sides

    def _synthesize(self, method: str, images: Path) -> None:
        config = self.config
        goods = len(list(images.glob("*.png")))
        wanted = config.instances * len(self.category.types(self.number))
        synthesize(
            images,
            self.made(method),
            engine=self.engine(NAIVE if method == NAIVE else OURS),
            count=-(-wanted // goods),
            seed=config.seed,
            threads=config.threads,
            quiet=self.quiet,
            **config.synthesis.model_dump(exclude_unset=True, exclude={"count", "seed"}),
        )

    def _row(self, part: str, method: str, figure: str, value: float, **more: Any) -> Row:
        c = self.category
        kind = "logical" if c.logical else "structural"
        return Row(kind, c.dataset, c.name, self.number, part, method, figure, value, **more)


def label_by_masks(made: Path, out: Path) -> None:
    """The same made pictures, each labelled by the mask that was asked for, not by what changed."""

    def write(folder: Path) -> None:
        shutil.copytree(made, folder, dirs_exist_ok=True)
        dataset = read_finished(made)
        for entry in dataset.entries:
            mask = read_any_mask(made / str(entry.mask)) * np.uint8(255)
            (folder / entry.label).write_bytes(encode_png(mask[..., None]))
        lines = [json.loads(line) for line in (made / MANIFEST).read_text().splitlines()]
        for line in lines:
            line.pop("refined_area", None)  # it was the other label's
        (folder / MANIFEST).write_text("".join(json.dumps(line) + "\n" for line in lines))

    write_directory(out, write, advice="run the same command again")
