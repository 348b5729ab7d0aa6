"""The main job: a folder of good images becomes a labelled dataset of defective ones."""

from __future__ import annotations

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

from ..config.job import JobConfig
from ..engines.loading import BUNDLED_ENGINE, batch_size_of, open_engine
from ..engines.manifest import MANIFEST
from ..errors import Cancelled, InputError, NothingDoneError, OutputError, PartialError, UsageError
from ..files import sha256_of
from ..images.folder import find_images, left_out_note
from ..images.reading import read_image
from ..masks.examples import read_examples
from ..masks.source import MaskSource, Placed, digest
from ..masks.sources import open_masks
from ..output.dataset import DatasetWriter
from ..output.formats import finish
from ..output.journal import JOURNAL, JournalEntry
from ..progress import Progress
from .changes import check_unchanged
from .pipeline import Pipeline, Sample, SourceImage
from .scheduler import Call, Scheduler, Task, Work

__all__ = ["Summary", "synthesize"]

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
class _Listed:
    """An image of the folder, not yet read: its place there, its path and its path within."""

    index: int
    path: Path
    name: str


def synthesize(
    images: str | Path | None = None,
    out: str | Path | None = None,
    config: JobConfig | None = None,
    *,
    wait: bool = False,
    redo: bool = False,
    quiet: bool = False,
    **options: Any,
) -> Summary:
    """Put defects into every image under ``images`` and write a dataset to ``out``.

    ``options`` are those of the command line and of `JobConfig`, by the same names; ``config``
    holds them all, and what is given beside it replaces what it says. Images that cannot be used
    are listed in the summary; the rest goes on. The provider decides the last bits, so a job
    goes on with the one it began with. Whatever stopped a job, the same call goes on with it and
    ends with the same files; another process that is writing to ``out`` is an `OutputError`,
    unless told to ``wait`` for it. An image, a mask or a region that was changed since samples
    were made with it is an `InputError`, unless told to ``redo`` those samples. Ctrl-C finishes
    the samples at hand and raises `Cancelled`.
    Raises the errors of `defectrt.errors` for everything that concerns the whole job, before
    anything is written.
    """
    given = {"images": images, "out": out}
    options |= {key: value for key, value in given.items() if value is not None}
    config = config.replace(**options) if config else JobConfig(**options)
    goods = _find_goods(config)
    folders = [p for p in (config.images, *config.mask_paths) if p.is_dir()]
    if note := left_out_note(folders):
        print(f"note: {note}", file=sys.stderr)
    requested = len(goods) * config.count
    with open_engine(config, requested * config.candidates) as opened:
        pipeline = Pipeline(opened, config)
        masks = open_masks(
            config,
            pipeline.defect,
            window=pipeline.window,
            seed=config.seed,
            band=pipeline.band,
            examples=read_examples(config.engine or BUNDLED_ENGINE),
        )
        record = config.record() | {
            "batch_size": batch_size_of(config, opened),
            "defect": pipeline.defect,
            "steps": len(pipeline.schedule),
            "category": config.category,
            "engine": sha256_of((config.engine or BUNDLED_ENGINE) / MANIFEST),
            "provider": opened.provider,
            "defect_types": opened.manifest.defect_types,
            "images": digest(listed.name for listed in goods),
            "masks": masks.record(),
        }
        writer = DatasetWriter(config.out, config.category, pipeline.defect, record, wait=wait)
        scheduler = Scheduler(opened, batch_size=batch_size_of(config, opened))
        with writer.journal:
            check_unchanged(config, writer, redo=redo)
            run = _Run(pipeline, masks, writer, record, goods)
            with (
                Progress(requested, "synthesize", quiet=quiet) as progress,
                _interrupt(quiet) as stop,
            ):
                for task in scheduler.run(run.tasks(stop)):
                    run.settle(task.result())
                    progress.update(run.done, kept=run.kept)
                writer.finish()
                if run.done < requested:
                    raise Cancelled(
                        f"stopped after {run.done} of {requested} samples; "
                        "run the same command again to go on"
                    )
            finish(config.out, config.formats)
            return run.summary()


def _find_goods(config: JobConfig) -> list[_Listed]:
    """All images but those in the folders of masks and results, should these lie below.

    Results of other jobs are told by their journals.
    """
    images = config.images
    if not images.is_dir():
        raise InputError(f"{images}: no such folder of images")
    root, *others = (folder.resolve() for folder in (images, config.out, *config.mask_paths))
    if root in others:
        raise UsageError(f"{images}: images, masks and results need a folder each")
    others += [journal.parent.resolve() for journal in images.rglob(JOURNAL)]
    paths = [
        path
        for path in find_images(images)
        if not any((root / path.relative_to(images)).is_relative_to(other) for other in others)
    ]
    if not paths:
        raise InputError(f"{images}: holds no images (PNG, JPEG, TIFF or BMP)")
    return [_Listed(i, p, p.relative_to(images).as_posix()) for i, p in enumerate(paths)]


class _Run:
    """One run of a job: what is left to do, and the account.

    kept        samples in the dataset
    done        samples that are settled or could not be made
    """

    def __init__(
        self,
        pipeline: Pipeline,
        masks: MaskSource,
        writer: DatasetWriter,
        record: dict[str, Any],
        goods: Sequence[_Listed],
    ) -> None:
        self._pipeline, self._masks = pipeline, masks
        self._writer, self._goods = writer, goods
        self._record = {key: record[key] for key in _RECORDED}
        self._made = 0
        self.kept = writer.journal.count("kept")
        self.done = self.kept + writer.journal.count("dropped")

    def tasks(self, stop: threading.Event) -> Iterator[Task[JournalEntry]]:
        """A task for every sample that is not settled, until stopped."""
        for listed in self._goods:
            settled = self._writer.journal.settled(listed.index)
            numbers = [k for k in range(self._pipeline.config.count) if k not in settled]
            reading = Task(self._read(listed))
            for number in numbers:
                if stop.is_set():
                    return
                yield Task(self._make(listed, reading, number))

    def settle(self, entry: JournalEntry) -> None:
        """Take down what became of a sample."""
        self._writer.journal.settle(entry)
        self._made += entry.state != "failed"
        self.kept += entry.state == "kept"
        self.done += 1

    def summary(self) -> Summary:
        """The account, with what earlier runs made."""
        journal = self._writer.journal
        dropped = [f"{e.source}, sample {e.number}: {e.reason}" for e in journal.entries("dropped")]
        failed = list(journal.entries("failed"))
        tries, rejected = journal.tries()
        requested = len(self._goods) * self._pipeline.config.count
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
        self, listed: _Listed, reading: Task[tuple[SourceImage, dict[str, Any]]], number: int
    ) -> Work[JournalEntry]:
        """One sample, from reading its image to writing its files."""
        start = monotonic()
        try:
            ((source, record),) = yield (reading,)
            placed = yield Call("masks", lambda: self._masks(listed.name, source.image, number))
        except InputError as fault:
            name, reason = (_readable(text) for text in (listed.name, str(fault)))
            return JournalEntry(listed.index, number, name, "failed", reason)
        sample = yield from self._pipeline.sample(
            source, number, [instance.mask for instance in placed]
        )
        record = yield Call("write", lambda: self._write(listed, sample, placed, record))
        return JournalEntry(
            listed.index,
            number,
            listed.name,
            "dropped" if sample.fault else "kept",
            sample.fault or "",
            sample.tries,
            len(sample.rejected),
            monotonic() - start,
            record,
        )

    def _read(self, listed: _Listed) -> Work[tuple[SourceImage, dict[str, Any]]]:
        """An image, kept as a good one, and what its samples' records say of it."""

        def read() -> tuple[SourceImage, dict[str, Any]]:
            try:
                listed.name.encode()
            except UnicodeEncodeError as error:
                raise InputError(
                    f"{listed.path}: the name is not UTF-8; rename the file, or set PYTHONUTF8=1"
                ) from error
            image = read_image(listed.path)
            record = {"source": listed.name, "source_sha256": sha256_of(listed.path)}
            name = _number(listed.index, len(self._goods))
            record["good"] = self._writer.add_good(listed.index, name, image)
            return SourceImage(listed.name, image), record

        result: tuple[SourceImage, dict[str, Any]] = yield Call("read", read)
        return result

    def _write(
        self, listed: _Listed, sample: Sample, placed: Sequence[Placed], record: dict[str, Any]
    ) -> dict[str, Any]:
        """Write a sample's files, unless it is none; returns its line in the manifest."""
        record = record | {
            "masks": [instance.record for instance in placed],
            "sample": sample.number,
        }
        record |= {"seed": sample.seed, **self._record, **sample.figures}
        if sample.fault:
            return record
        count = self._pipeline.config.count
        name = _number(listed.index * count + sample.number, len(self._goods) * count)
        mask = np.logical_or.reduce([instance.mask for instance in placed])
        paths = self._writer.write(name, sample.image, sample.label, mask)
        _check(self._writer.out / paths["image"], sample)
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
    written, source = read_image(image), sample.source.image
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
