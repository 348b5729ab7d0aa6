"""Made and real defects of each type, and the real ones that the made ones were learned from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from defectrt.diffusion.rows import Floats
from defectrt.engines.manifest import read_manifest
from defectrt.errors import InputError
from defectrt.images.preview import evenly

from ..data.dataset import read_defects
from ..data.layouts import GOOD
from ..data.samples import Sample, given_defects
from ..proving.material import read_made
from ..proving.workpieces import workpieces
from .config import PicturesConfig

__all__ = ["Compared", "Material", "as_compared", "read_compared"]


@dataclass(frozen=True)
class Compared:
    """Of one type of defect.

    made, real    pictures, and of each its workpiece as a number
    training      what the made ones were learned from; None: not known
    left_out      real pictures that show a workpiece which was learned from
    """

    made: Sequence[Sample]
    real: Sequence[Sample]
    made_pieces: Sequence[int]
    real_pieces: Sequence[int]
    training: Sequence[Sample] | None = None
    left_out: int = 0


@dataclass
class Material:
    """All types that can be compared, and what has to be said of the rest."""

    types: dict[str, Compared] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_compared(folder: Path, config: PicturesConfig) -> Material:
    """Made pictures of ``folder``, an output of this program or any dataset, beside real ones.

    Real pictures that show a workpiece which was learned from are left out, and a note says so.
    Raises `InputError` if nothing can be compared, naming the types of both sides.
    """
    made = [p.sample for p in read_made(folder).pictures]
    names = {s.defect_type for s in made}
    if unknown := sorted(config.same.keys() - names):
        raise InputError(f"--same {', '.join(unknown)}: {folder} has {', '.join(sorted(names))}")
    wanted = {name: config.same.get(name, name) for name in sorted(names)}
    real, shown = _read(config.real, config.layout, wanted.values())
    training, _ = _read(config.training, config.layout, wanted.values())
    material = Material()
    for name, other in wanted.items():
        of_type = [s for s in real if s.defect_type.casefold() == other.casefold()]
        if not of_type:
            material.notes.append(f"{name}: not compared, no real ones are given")
            continue
        own = [s for s in training if s.defect_type.casefold() == other.casefold()]
        compared = _apart([s for s in made if s.defect_type == name], of_type, own, config)
        if compared.left_out:
            material.notes.append(
                f"{name}: {compared.left_out} real pictures are left out, they show a workpiece "
                "that was learned from"
            )
        if min(len(compared.made), len(compared.real)) < 2:
            material.notes.append(
                f"{name}: not compared, it takes two made and two real pictures that were not "
                f"learned from; there are {len(compared.made)} and {len(compared.real)}"
            )
            continue
        material.types[name] = compared
    if not material.types:
        raise InputError(
            f"{folder}: nothing can be compared; made are {', '.join(sorted(names))}, real are "
            f"{', '.join(sorted(shown)) or 'none'}: name those that are the same with --same "
            "MADE=REAL\n" + "\n".join(material.notes)
        )
    return material


def as_compared(
    name: str,
    made: tuple[Floats, Floats],
    real: tuple[Floats, Floats],
    training: tuple[Floats, Floats] | None,
) -> Compared:
    """Crops [B,3,S,S] in about [-1,1] with their masks [B,1,S,S], as pictures of one type."""
    own, others = _held(*made, name), _held(*real, name)
    learned = _held(*training, name) if training else None
    return Compared(own, others, workpieces(own), workpieces(others), learned)


def _held(pixels: Floats, masks: Floats, name: str) -> list[Sample]:
    levels: Any = ((pixels.clip(-1, 1) + 1) * 127.5).round().astype(np.uint8)
    images = levels.transpose(0, 2, 3, 1)
    return given_defects({name: list(zip(images, masks[:, 0] > 0, strict=True))})


def _read(
    folders: Iterable[Path], layout: str | None, wanted: Iterable[str]
) -> tuple[list[Sample], set[str]]:
    """The defects of the types that are wanted, and the names of all types there are."""
    names, samples, shown = {name.casefold() for name in wanted}, list[Sample](), set[str]()
    for folder in folders:
        found = read_defects(folder, layout)
        if isinstance(found, list):
            shown |= {s.defect_type for s in found}
            samples += [s for s in found if s.defect_type.casefold() in names]
        else:
            shown |= set(found.defect_types)
            samples += found.read([i for i in found.items if i.defect_type.casefold() in names])
    return [s for s in samples if s.defect_type != GOOD], shown - {GOOD}


def _apart(
    made: Sequence[Sample],
    real: Sequence[Sample],
    training: Sequence[Sample],
    config: PicturesConfig,
) -> Compared:
    """Real ones without those of a workpiece that was learned from."""
    hashes = _learned(config.engine)
    learned = [*training, *(s for s in real if s.sha256() in hashes)]
    known = {s.sha256() for s in learned}
    others = [s for s in real if s.sha256() not in known]
    found = workpieces([*learned, *others], config.group, config.near)
    taken = set(found[: len(learned)])
    kept = [(s, p) for s, p in zip(others, found[len(learned) :], strict=True) if p not in taken]
    some, own = evenly(kept, config.most), evenly(made, config.most)
    return Compared(
        made=own,
        real=[s for s, _ in some],
        made_pieces=workpieces(own),
        real_pieces=[p for _, p in some],
        training=list({s.sha256(): s for s in learned}.values()) or None,
        left_out=len(others) - len(kept),
    )


def _learned(engines: Sequence[Path]) -> set[str]:
    return {e.sha256 for path in engines for e in read_manifest(path).provenance.dataset}
