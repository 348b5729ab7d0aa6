"""The main job: a folder of good pictures becomes a labelled dataset of defective ones."""

from __future__ import annotations

import math
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from .dataset import Dataset
from .engine import DEFAULT_ENGINE, load_engine
from .errors import Cancelled, InputError, NothingDoneError, OutputError, PartialError, UsageError
from .formats import Format, finish, parse_formats
from .images import find_pictures, read_picture
from .maker import Item, Job, Maker, Sample
from .manifest import MANIFEST, hash_file
from .masks import MaskSource, digest
from .progress import Progress
from .sources import Masks

__all__ = ["Job", "Summary", "synthesize"]

#: What a sample's line in the manifest says of the job.
_RECORDED = ("defect", "seed", "steps", "background", "blend", "engine")


@dataclass
class Summary:
    """What became of a job.

    requested   samples that were asked for
    made        samples that were made now, not in an earlier run
    kept        samples that are in the dataset
    dropped     samples that were made and not kept, each with its reason
    skipped     pictures that could not be used, each with its reason
    """

    requested: int = 0
    made: int = 0
    kept: int = 0
    dropped: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def check(self) -> None:
        """Raise `NothingDoneError` or `PartialError` unless everything was made and kept."""
        if self.kept == self.requested:
            return
        reasons = "".join(f"\n  {line}" for line in self.skipped + self.dropped)
        text = f"{self.kept} of {self.requested} samples were made{reasons}"
        raise (PartialError if self.kept else NothingDoneError)(text)


@dataclass(frozen=True)
class _Good:
    """A picture of the folder, not yet read: its place there, its path and its path within."""

    index: int
    path: Path
    source: str


def synthesize(
    images: str | Path,
    engine: str | Path | None,
    masks: str | Path | Masks | None,
    out: str | Path,
    job: Job | None = None,
    *,
    category: str = "parts",
    formats: Sequence[Format] = ("mvtec",),
    resume: bool = False,
    threads: int | None = None,
    quiet: bool = False,
) -> Summary:
    """Put defects into every picture under ``images`` and write a dataset to ``out``.

    Without ``engine`` the one inside the package is taken. ``masks`` says where masks come from
    (see `defectrt.Masks`); a folder alone holds one for every picture, of the same path; without
    it, one that suits the kind of defect is drawn.
    Pictures that cannot be used are skipped and listed in the summary; the rest goes on.
    ``formats`` besides the MVTec AD layout are written at the end (see `defectrt.formats`).
    Ctrl-C finishes the pictures at hand and raises `Cancelled`; ``resume`` goes on from there
    and ends with the same files. Raises the errors of `defectrt.errors` for everything that
    concerns the whole job, before anything is written.
    """
    job, formats = job or Job(), parse_formats(",".join(formats))
    images, engine, out = Path(images), Path(engine or DEFAULT_ENGINE), Path(out)
    options = masks if isinstance(masks, Masks) else Masks(folder=Path(masks) if masks else None)
    goods = _find_goods(images, out, *options.paths())
    with load_engine(engine, threads=threads) as opened:
        maker = Maker(opened, job)
        band = math.ceil(job.grow + job.feather)
        mask_source = options.open(maker.defect, opened.manifest.image.height, job.seed, band)
        record = job.record() | {
            "defect": maker.defect,
            "steps": len(maker.schedule),
            "category": category,
            "engine": hash_file(engine / MANIFEST).sha256,
            "kinds": opened.manifest.defects,
            "pictures": digest(good.source for good in goods),
            "masks": mask_source.record(),
        }
        dataset = Dataset(out, category, maker.defect, record, resume=resume)
        run = _Run(maker, mask_source, dataset, record, len(goods))
        with Progress(len(goods), "synthesize", quiet=quiet) as progress, _interrupt(quiet) as stop:
            for start in range(0, len(goods), job.batch):
                if stop.is_set():
                    raise Cancelled(
                        f"stopped after {start} of {len(goods)} pictures; go on with --resume"
                    )
                run.make(goods[start : start + job.batch])
                progress.update(min(start + job.batch, len(goods)), kept=len(dataset.kept))
    finish(out, formats)
    return run.summary()


def _find_goods(images: Path, *not_in: Path) -> list[_Good]:
    """All pictures but those in the folders of masks and results, should these lie below."""
    if not images.is_dir():
        raise InputError(f"{images}: no such folder of pictures")
    root, *others = (folder.resolve() for folder in (images, *not_in))
    if root in others:
        raise UsageError(f"{images}: pictures, masks and results need a folder each")
    paths = [
        path
        for path in find_pictures(images)
        if not any((root / path.relative_to(images)).is_relative_to(other) for other in others)
    ]
    if not paths:
        raise InputError(f"{images}: holds no pictures (PNG, JPEG, TIFF or BMP)")
    return [_Good(i, p, p.relative_to(images).as_posix()) for i, p in enumerate(paths)]


class _Run:
    """One run of a job: reads, makes and writes pictures in groups, and keeps the account."""

    def __init__(
        self,
        maker: Maker,
        masks: MaskSource,
        dataset: Dataset,
        record: dict[str, Any],
        total: int,
    ) -> None:
        self._maker, self._masks, self._dataset, self._total = maker, masks, dataset, total
        self._record = {key: record[key] for key in _RECORDED}
        self._skipped: list[str] = []
        self._made = 0

    def make(self, goods: Sequence[_Good]) -> None:
        """Make what is missing of a group.

        If anything is, the whole group goes through the engine, so that a resumed job meets the
        same batches and ends with the same bits.
        """
        if all(self._is_settled(good.source) for good in goods):
            return
        items = list(self._read(goods))
        if all(self._is_settled(item.source) for item in items):
            return
        for item in items:
            name = _number(item.index, self._total)
            item.record["good"] = self._dataset.add_good(item.index, name, item.picture)
        for sample in self._maker(items):
            if (sample.item.source, sample.number) not in self._dataset:
                self._write(sample)
                self._made += 1

    def summary(self) -> Summary:
        """The account, with what earlier runs made."""
        dropped = self._dataset.dropped.items()
        return Summary(
            requested=self._total * self._maker.job.count,
            made=self._made,
            kept=len(self._dataset.kept),
            dropped=[f"{source}, sample {k}: {reason}" for (source, k), reason in dropped],
            skipped=self._skipped,
        )

    def _is_settled(self, source: str) -> bool:
        """Whether all samples of a picture are kept or dropped already."""
        return all((source, k) in self._dataset for k in range(self._maker.job.count))

    def _read(self, goods: Sequence[_Good]) -> Iterator[Item]:
        """Pictures with their masks; those that cannot be used are skipped."""
        for good in goods:
            try:
                yield _read(good, self._masks)
            except InputError as fault:
                self._skipped.append(str(fault))

    def _write(self, sample: Sample) -> None:
        item = sample.item
        record = item.record | {"sample": sample.number} | self._record | sample.figures
        reason = sample.fault or (None if sample.label.any() else "no defect appeared")
        if reason:
            self._dataset.drop(record, reason)
            return
        count = self._maker.job.count
        name = _number(item.index * count + sample.number, self._total * count)
        image, label = self._dataset.write(name, sample.picture, sample.label)
        record["outside_error"] = _outside_error(image, sample)
        self._dataset.keep(image, label, record)


def _read(good: _Good, masks: MaskSource) -> Item:
    """Read a picture and get its mask; all spots of a sample are one mask for now.

    Raises `InputError` for whatever is wrong with either.
    """
    try:
        good.source.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{good.path}: the name is not UTF-8; rename the file") from error
    picture = read_picture(good.path)
    placed = masks(good.source, picture, 0)
    record = {
        "source": good.source,
        "source_sha256": hash_file(good.path).sha256,
        "masks": [spot.record for spot in placed],
    }
    mask = np.logical_or.reduce([spot.mask for spot in placed])
    return Item(good.index, good.source, picture, mask, record)


def _number(index: int, total: int) -> str:
    """A zero-padded name that depends on the place in the folder alone."""
    return str(index).zfill(max(3, len(str(total - 1))))


def _outside_error(image: Path, sample: Sample) -> int:
    """Largest difference to the source outside the band, measured on the file as written.

    0, or an `OutputError`: a result that cannot be trusted is not kept.
    """
    written, source = read_picture(image), sample.item.picture
    if written.dtype == source.dtype and written.shape == source.shape:
        wrong = (written != source) & ~sample.band[..., None]
        if not wrong.any():
            return 0
    raise OutputError(f"{image}: differs from its source outside the mask; is the disk sound?")


@contextmanager
def _interrupt(quiet: bool) -> Iterator[threading.Event]:
    """An event that Ctrl-C sets, so that the pictures at hand are finished; twice stops at once.

    Left alone where the host handles the signal itself, or runs this outside its main thread.
    """
    stop = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            signal.default_int_handler(number, frame)
        stop.set()
        if not quiet:
            print("finishing the pictures at hand; Ctrl-C again stops at once", file=sys.stderr)

    ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if ours:
        signal.signal(signal.SIGINT, handle)
    try:
        yield stop
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
