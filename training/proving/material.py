"""What a proof is made of: real pictures with their workpieces, and sets of made ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from defectrt.engines.loading import BUNDLED_ENGINE
from defectrt.engines.manifest import read_manifest
from defectrt.errors import InputError
from defectrt.images.folder import find_files
from defectrt.masks.reading import unsmeared
from defectrt.output.records import JOB, MANIFEST, FinishedDataset, find_datasets, read_finished

from ..data.dataset import read_defects
from ..data.layouts import GOOD, Item
from ..data.samples import Sample, checked, read_good

__all__ = ["MadePicture", "MadeSet", "read_made", "read_real"]


@dataclass(frozen=True)
class MadePicture:
    """A made picture, and the hash of the good picture that it was made on, if that is known."""

    sample: Sample
    source: str | None = None


@dataclass(frozen=True)
class MadeSet:
    """A set of made defects.

    name      of its folder
    pictures  that show a defect
    learned   hashes of the pictures that its engines have learned from, or whose defects it moved;
              None if that is not known
    labels    area of the label over the area that visibly changed, of pictures that record it
    """

    name: str
    pictures: tuple[MadePicture, ...]
    learned: frozenset[str] | None
    labels: tuple[float, ...] = field(default=(), repr=False)

    @property
    def sources_known(self) -> bool:
        """Whether every picture says what it was made on."""
        return all(picture.source for picture in self.pictures)


def read_real(defects: Path, good: Sequence[Path] = (), layout: str | None = None) -> list[Sample]:
    """All real pictures of a dataset, or of one type's folder, those for testing too.

    Raises `InputError` if something cannot be used, or if nothing there shows a defect.
    """
    found = read_defects(defects, layout)
    samples = found if isinstance(found, list) else found.read(found.items)
    if not any(sample.defect_type != GOOD for sample in samples):
        raise InputError(
            f"{defects}: shows no defects; each needs a mask, see defectrt data inspect"
        )
    return samples + [sample for folder in good for sample in read_good(folder)]


def read_made(folder: Path, engines: Sequence[Path] = ()) -> MadeSet:
    """A set of made defects, from one or several outputs of this program, or any dataset.

    ``engines`` are asked what they have learned from. Raises `InputError` if nothing in the folder
    shows a defect.
    """
    own = (folder / MANIFEST).exists()
    files = find_files(folder) if folder.is_dir() and not own else []
    outputs = [folder] if own else sorted(find_datasets(files))
    if not outputs:
        real = read_real(folder)
        pictures = tuple(MadePicture(s) for s in real if s.defect_type != GOOD)
        return MadeSet(folder.name, pictures, None)
    finished = [read_finished(out) for out in outputs if (out / JOB).exists()]
    made = [picture for dataset in finished for picture in _pictures(dataset)]
    if not made:
        raise InputError(f"{folder}: holds no made picture; let its job finish")
    known = _learned(engines)
    learned: frozenset[str] | None = frozenset()
    for dataset in finished:
        of_engine = known.get(str(dataset.job.get("engine")))
        if learned is None or of_engine is None:
            learned = None
        else:
            learned |= of_engine | _moved(dataset)
    return MadeSet(folder.name, tuple(made), learned, tuple(_labels(finished)))


def _pictures(dataset: FinishedDataset) -> list[MadePicture]:
    items = [
        Item(dataset.out / e.image, e.image, e.defect, (dataset.out / e.label,))
        for e in dataset.entries
    ]
    samples = checked(items, unsmeared)
    return [
        MadePicture(sample, e.record.get("source_sha256"))
        for sample, e in zip(samples, dataset.entries, strict=True)
    ]


def _moved(dataset: FinishedDataset) -> frozenset[str]:
    """Hashes of the pictures whose own defects were put onto others, by ``synthesize --like``."""
    masks = (mask for entry in dataset.entries for mask in entry.record.get("masks", ()))
    return frozenset(str(mask.get("sha256")) for mask in masks if mask.get("from") == "like")


def _labels(finished: Iterable[FinishedDataset]) -> Iterable[float]:
    for dataset in finished:
        for entry in dataset.entries:
            label, changed = (entry.record.get(k) for k in ("refined_area", "changed_area"))
            if isinstance(label, int | float) and isinstance(changed, int | float) and changed:
                yield label / changed


def _learned(engines: Sequence[Path]) -> dict[str, frozenset[str]]:
    """Hashes of the pictures that each engine has learned from, by its fingerprint.

    The bundled engine has learned from drawn ones alone.
    """
    found = {read_manifest(BUNDLED_ENGINE).fingerprint: frozenset[str]()}
    for path in engines:
        manifest = read_manifest(path)
        hashes = frozenset(entry.sha256 for entry in manifest.provenance.dataset)
        found[manifest.fingerprint] = hashes
    return found
