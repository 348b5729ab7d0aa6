"""What is learned from and tested on: every category in two folds; trays are drawn.

OUT/DATASET/CATEGORY/0/shots/TYPE   good   test/TYPE      and 1/…, the other way round
OUT/DATASET/CATEGORY/0/loco         of logical anomalies, what a fold learns from once more
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from defectrt.errors import InputError
from defectrt.files import write_directory, write_whole
from defectrt.images.png import encode_png
from defectrt.training.data.dataset import read_defects
from defectrt.training.data.layouts import GOOD
from defectrt.training.data.samples import Sample
from defectrt.training.proving.material import read_real

from .. import tray
from ..arena.folds import write_folds
from .config import DatasetConfig, PaperConfig

FOLDS = (0, 1)
LOCO = "loco-classes"
#: Of a side of the drawn trays, at least.
TRAYS = 20


@dataclass(frozen=True)
class Category:
    """One object of a dataset, and where its folds lie."""

    dataset: str
    name: str
    config: DatasetConfig
    out: Path

    @property
    def logical(self) -> bool:
        return self.config.logical

    @property
    def drawn(self) -> bool:
        """Whether a counter knows what lies in its pictures."""
        return self.config.path is None

    def fold(self, number: int) -> Path:
        return self.out / str(number)

    def types(self, fold: int) -> list[str]:
        return sorted(folder.name for folder in (self.fold(fold) / "shots").iterdir())


def categories(config: PaperConfig, out: Path) -> list[Category]:
    """All categories of all datasets, in the order of the configuration."""
    return [
        Category(dataset, name, own, out / dataset / name)
        for dataset, own in config.datasets.items()
        for name in own.categories or (dataset,)
    ]


def divide(category: Category, config: PaperConfig) -> None:
    """Write both folds of a category, whole or not at all. Raises `InputError` for lacking data."""

    def write(folder: Path) -> None:
        samples = list(_samples(category, config, folder))
        groups = category.config.group, category.config.near
        shots = config.shots or sys.maxsize
        write_folds(samples, folder, shots=shots, good=config.good, groups=groups)
        if category.logical:
            for number in FOLDS:
                _write_loco(folder / str(number))
        shutil.rmtree(folder / "drawn", ignore_errors=True)

    write_directory(category.out, write, advice="run the same command again")


def _samples(category: Category, config: PaperConfig, folder: Path) -> Iterator[Sample]:
    """The defects of the types that are wanted, and the good pictures to train on."""
    own, path = category.config, category.config.path
    if path is None:
        each = 2 * max(TRAYS, config.shots or 0)
        tray.draw(folder / "drawn", shots=each, good=2 * config.good, fresh=0)
        path = folder / "drawn" / "loco"
    elif own.categories:
        path = path / category.name
    found = read_defects(path, own.layout or (LOCO if own.logical else None))
    samples = found if isinstance(found, list) else found.samples()
    shown = {sample.defect_type for sample in samples}
    wanted = {*(own.types or shown), GOOD}
    if lacking := sorted(wanted - shown):
        raise InputError(
            f"{path}: shows no {', '.join(lacking)}; it has {', '.join(sorted(shown))}"
        )
    yield from (sample for sample in samples if sample.defect_type in wanted)


def _write_loco(fold: Path) -> None:
    """A fold's shots and good pictures as MVTec LOCO AD has them, a class a type."""
    root, shots = fold / "loco", [s for s in read_real(fold / "shots") if s.defect_type != GOOD]
    values = {name: 255 - i for i, name in enumerate(sorted({s.defect_type for s in shots}))}
    for i, sample in enumerate(shots):
        name = f"logical_anomalies/{i:03}"
        write_whole(root / "test" / f"{name}.png", encode_png(sample.image))
        mask = (sample.mask * np.uint8(values[sample.defect_type]))[..., None]
        write_whole(root / "ground_truth" / name / "000.png", encode_png(mask))
    shutil.copytree(fold / GOOD, root / "train" / GOOD)
    classes = [
        {"defect_name": name, "pixel_value": value}
        | {"saturation_threshold": 1.0, "relative_saturation": True}
        for name, value in values.items()
    ]
    write_whole(root / "defects_config.json", json.dumps(classes).encode())
