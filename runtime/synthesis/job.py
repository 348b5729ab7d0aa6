"""The main job: a folder of good images becomes a labelled dataset of defective ones."""

from __future__ import annotations

import math
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import Any

import numpy as np

from ..config.masks import Masks
from ..config.synthesis import Job
from ..engines.engine import cores
from ..engines.loading import BUNDLED_ENGINE, load_engine
from ..engines.manifest import MANIFEST
from ..errors import Cancelled, InputError, NothingDoneError, OutputError, PartialError, UsageError
from ..files import sha256_of
from ..images.folder import find_images
from ..images.reading import read_image
from ..masks.source import MaskSource, Placed, digest
from ..output.dataset import Dataset
from ..output.formats import Format, finish, parse_formats
from ..output.journal import Entry
from ..progress import Progress
from .pipeline import Good, Pipeline, Sample
from .scheduler import Call, Scheduler, Task, Work

__all__ = ["Job", "Summary", "synthesize"]

#: What a sample's line in the manifest says of the job.
_RECORDED = ("defect", "category", "steps", "background", "blend", "engine", "provider")


@dataclass
class Summary:
    """What became of a job.

    requested   samples that were asked for
    placed      samples for which there was an image and a place for the defect
    generated   samples that went through the engine
    kept        samples that are in the dataset
    made        samples that were generated now, not in an earlier run
    tries       candidates that were generated
    rejected    candidates that were not fit: too small a change, or a leak
    dropped     samples that were generated and not kept, each with its reason
    failed      images that could not be used, each with its reason
    provider    what the engine ran on
    """

    requested: int = 0
    placed: int = 0
    generated: int = 0
    kept: int = 0
    made: int = 0
    tries: int = 0
    rejected: int = 0
    dropped: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    provider: str = ""

    def check(self) -> None:
        """Raise `NothingDoneError` or `PartialError` unless everything was made and kept."""
        if self.kept == self.requested:
            return
        reasons = "".join(f"\n  {line}" for line in self.failed + self.dropped)
        text = f"{self.kept} of {self.requested} samples were made{reasons}"
        raise (PartialError if self.kept else NothingDoneError)(text)


@dataclass(frozen=True)
class _Entry:
    """An image of the folder, not yet read: its place there, its path and its path within."""

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
    threads: int | None = None,
    provider: str | None = None,
    trust: str | None = None,
    wait: bool = False,
    quiet: bool = False,
) -> Summary:
    """Put defects into every image under ``images`` and write a dataset to ``out``.

    Without ``engine`` the bundled one is taken. ``masks`` says where masks come from
    (see `defectrt.Masks`); a folder alone holds one for every image, of the same path; without
    it, one that suits the type of defect is drawn.
    Images that cannot be used are listed in the summary; the rest goes on. ``formats`` besides
    the MVTec AD layout are written at the end, see `defectrt.output.formats`. ``provider`` is
    what an ONNX engine runs on, and ``trust`` has the fingerprints of other engines that may run,
    see `defectrt.engines.loading.load_engine`. The provider decides the last bits, so a job
    goes on with the one it began with. Whatever stopped a job, the same call goes on with it and
    ends with the same files; another process that is writing to ``out`` is an `OutputError`,
    unless told to ``wait`` for it. Ctrl-C finishes the samples at hand and raises `Cancelled`.
    Raises the errors of `defectrt.errors` for everything that concerns the whole job, before
    anything is written.
    """
    job, formats = job or Job(), parse_formats(",".join(formats))
    images, engine, out = Path(images), Path(engine or BUNDLED_ENGINE), Path(out)
    options = masks if isinstance(masks, Masks) else Masks(folder=Path(masks) if masks else None)
    entries = _find_goods(images, out, *options.paths())
    requested = len(entries) * job.count
    threads = threads if threads is not None else cores()
    calls = max(1, min(threads, requested * job.candidates // job.batch))
    with load_engine(
        engine, threads=threads, calls=calls, provider=provider, trust=trust
    ) as opened:
        pipeline = Pipeline(opened, job)
        band = math.ceil(job.grow + job.feather)
        mask_source = options.open(pipeline.defect, opened.manifest.image.height, job.seed, band)
        record = job.record() | {
            "defect": pipeline.defect,
            "steps": len(pipeline.schedule),
            "category": category,
            "engine": sha256_of(engine / MANIFEST),
            "provider": opened.provider,
            "defect_types": opened.manifest.defects,
            "images": digest(entry.source for entry in entries),
            "masks": mask_source.record(),
        }
        dataset = Dataset(out, category, pipeline.defect, record, wait=wait)
        run = _Run(pipeline, mask_source, dataset, record, entries)
        scheduler = Scheduler(opened, batch=job.batch)
        with dataset.journal, Progress(requested, "synthesize", quiet=quiet) as progress:
            with _interrupt(quiet) as stop:
                for task in scheduler.run(run.tasks(stop)):
                    run.settle(task.result())
                    progress.update(run.done, kept=run.kept)
                dataset.finish()
                if run.done < requested:
                    raise Cancelled(
                        f"stopped after {run.done} of {requested} samples; "
                        "run the same command again to go on"
                    )
            finish(out, formats)
            return run.summary()


def _find_goods(images: Path, *not_in: Path) -> list[_Entry]:
    """All images but those in the folders of masks and results, should these lie below."""
    if not images.is_dir():
        raise InputError(f"{images}: no such folder of images")
    root, *others = (folder.resolve() for folder in (images, *not_in))
    if root in others:
        raise UsageError(f"{images}: images, masks and results need a folder each")
    paths = [
        path
        for path in find_images(images)
        if not any((root / path.relative_to(images)).is_relative_to(other) for other in others)
    ]
    if not paths:
        raise InputError(f"{images}: holds no images (PNG, JPEG, TIFF or BMP)")
    return [_Entry(i, p, p.relative_to(images).as_posix()) for i, p in enumerate(paths)]


class _Run:
    """One run of a job: what is left to do, and the account.

    kept        samples in the dataset
    done        samples that are settled or could not be made
    """

    def __init__(
        self,
        pipeline: Pipeline,
        masks: MaskSource,
        dataset: Dataset,
        record: dict[str, Any],
        entries: Sequence[_Entry],
    ) -> None:
        self._pipeline, self._masks, self._dataset, self._entries = (
            pipeline,
            masks,
            dataset,
            entries,
        )
        self._record = {key: record[key] for key in _RECORDED}
        self._made = 0
        self.kept = dataset.journal.count("kept")
        self.done = self.kept + dataset.journal.count("dropped")

    def tasks(self, stop: threading.Event) -> Iterator[Task[Entry]]:
        """A task for every sample that is not settled, until stopped."""
        for entry in self._entries:
            settled = self._dataset.journal.settled(entry.index)
            numbers = [k for k in range(self._pipeline.job.count) if k not in settled]
            reading = Task(self._read(entry))
            for number in numbers:
                if stop.is_set():
                    return
                yield Task(self._make(entry, reading, number))

    def settle(self, entry: Entry) -> None:
        """Take down what became of a sample."""
        self._dataset.journal.settle(entry)
        self._made += entry.state != "failed"
        self.kept += entry.state == "kept"
        self.done += 1

    def summary(self) -> Summary:
        """The account, with what earlier runs made."""
        journal = self._dataset.journal
        dropped = [f"{e.source}, sample {e.number}: {e.reason}" for e in journal.entries("dropped")]
        failed = list(journal.entries("failed"))
        tries, rejected = journal.tries()
        requested = len(self._entries) * self._pipeline.job.count
        return Summary(
            requested=requested,
            placed=requested - len(failed),
            generated=self.kept + len(dropped),
            kept=self.kept,
            made=self._made,
            tries=tries,
            rejected=rejected,
            dropped=dropped,
            failed=list(dict.fromkeys(entry.reason for entry in failed)),
            provider=self._record["provider"],
        )

    def _make(
        self, entry: _Entry, reading: Task[tuple[Good, dict[str, Any]]], number: int
    ) -> Work[Entry]:
        """One sample, from reading its image to writing its files."""
        start = monotonic()
        try:
            ((good, record),) = yield (reading,)
            placed = yield Call("masks", lambda: self._masks(entry.source, good.image, number))
        except InputError as fault:
            source, reason = (_readable(text) for text in (entry.source, str(fault)))
            return Entry(entry.index, number, source, "failed", reason)
        sample = yield from self._pipeline.sample(
            good, number, [instance.mask for instance in placed]
        )
        record = yield Call("write", lambda: self._write(entry, sample, placed, record))
        return Entry(
            entry.index,
            number,
            entry.source,
            "dropped" if sample.fault else "kept",
            sample.fault or "",
            sample.tries,
            len(sample.rejected),
            monotonic() - start,
            record,
        )

    def _read(self, entry: _Entry) -> Work[tuple[Good, dict[str, Any]]]:
        """An image, kept as a good one, and what its samples' records say of it."""

        def read() -> tuple[Good, dict[str, Any]]:
            try:
                entry.source.encode()
            except UnicodeEncodeError as error:
                raise InputError(f"{entry.path}: the name is not UTF-8; rename the file") from error
            image = read_image(entry.path)
            record = {"source": entry.source, "source_sha256": sha256_of(entry.path)}
            name = _number(entry.index, len(self._entries))
            record["good"] = self._dataset.add_good(entry.index, name, image)
            return Good(entry.source, image), record

        result: tuple[Good, dict[str, Any]] = yield Call("read", read)
        return result

    def _write(
        self, entry: _Entry, sample: Sample, placed: Sequence[Placed], record: dict[str, Any]
    ) -> dict[str, Any]:
        """Write a sample's files, unless it is none; returns its line in the manifest."""
        record = record | {
            "masks": [instance.record for instance in placed],
            "sample": sample.number,
        }
        record |= {"seed": sample.seed, **self._record, **sample.figures}
        if sample.fault:
            return record
        count = self._pipeline.job.count
        name = _number(entry.index * count + sample.number, len(self._entries) * count)
        mask = np.logical_or.reduce([instance.mask for instance in placed])
        paths = self._dataset.write(name, sample.image, sample.label, mask)
        _check(self._dataset.out / paths["image"], sample)
        return paths | record


def _readable(text: str) -> str:
    """A text that can be written, whatever bytes a file's name is made of."""
    return text.encode(errors="backslashreplace").decode()


def _number(index: int, total: int) -> str:
    """A zero-padded name that depends on the place in the folder alone."""
    return str(index).zfill(max(3, len(str(total - 1))))


def _check(image: Path, sample: Sample) -> None:
    """Compare the file as written with the source outside the band.

    Raises `OutputError` if one bit differs: a result that cannot be trusted is not kept.
    """
    written, source = read_image(image), sample.good.image
    if written.dtype == source.dtype and written.shape == source.shape:
        wrong = (written != source) & ~sample.band[..., None]
        if not wrong.any():
            return
    raise OutputError(f"{image}: differs from its source outside the mask; is the disk sound?")


@contextmanager
def _interrupt(quiet: bool) -> Iterator[threading.Event]:
    """An event that Ctrl-C sets, so that the images at hand are finished; twice stops at once.

    Left alone where the host handles the signal itself, or runs this outside its main thread.
    """
    stop = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            signal.default_int_handler(number, frame)
        stop.set()
        if not quiet:
            print("finishing the samples at hand; Ctrl-C again stops at once", file=sys.stderr)

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
