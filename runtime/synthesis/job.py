"""The main job: good images become a labelled dataset of defective ones."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from ..config.job import JobConfig
from ..config.names import COMBINED
from ..diffusion.seeds import sample_seed
from ..engines.engine import Engine
from ..engines.loading import BUNDLED_ENGINE, batch_size_of, open_engine
from ..engines.manifest import MANIFEST
from ..errors import (
    Cancelled,
    DefectRTError,
    InputError,
    NothingDoneError,
    OutputError,
    PartialError,
    UsageError,
)
from ..files import first_of, read_input, sha256_of
from ..images.folder import find_files, images_of, left_out_note
from ..images.given import Picture, read_given
from ..images.png import encode_png
from ..images.reading import image_size, read_image
from ..images.types import DARK_BITS, MAX_BYTES, Bits, Mask, unused_bits
from ..masks.source import Placed, digest
from ..output.dataset import DatasetWriter
from ..output.formats import finish, splitting_of
from ..output.journal import ASKED, JournalEntry, State
from ..output.mark import Mark
from ..output.records import SHARD, find_datasets
from ..progress import Progress
from ..stopping import asked_to_stop
from .changes import check_unchanged
from .maker import Maker, open_makers, open_mixed, types_made
from .mixed import Mixed, type_of_all
from .pipeline import Sample, SourceImage, memory_of
from .scheduler import Call, Scheduler, Task, Work
from .turns import Turns, shares_of

__all__ = ["JobState", "Summary", "synthesize"]

#: Of an image that are compared at once, so that it is not in memory once more.
_ROWS = 256
#: Beside a sample's seed, what draws whether it is painted healthy.
_HEALTHY = 0x4EA17
_STOPPING = "finishing the samples at hand; Ctrl-C again stops at once"
#: An image, by its place in the folder, to the numbers and types of its samples.
Samples: TypeAlias = Callable[[int], Iterable[tuple[int, str]]]
#: What a sample's line in the manifest says of the job.
_RECORDED = ("category", "steps", "background", "blend", "engine", "provider")


@dataclass
class Summary:
    """What became of a job, all runs that added types to it included.

    requested   samples that were asked for
    placed      samples for which there was an image and a place for the defect
    generated   samples that went through the engine
    kept        samples that are in the dataset
    healthy     samples that were painted without a defect, beside it
    refused     samples that a review took out of it
    made        samples that were generated now, not in an earlier run
    tries       candidates that were generated
    rejected    candidates that were not fit: too small a change, or a leak
    dropped     samples that were generated and not kept, each with its reason
    failed      images that could not be used, each with its reason
    provider    what the engine ran on
    by_type     requested, placed, generated and kept samples of each type of defect
    """

    requested: int = 0
    placed: int = 0
    generated: int = 0
    kept: int = 0
    healthy: int = 0
    refused: int = 0
    made: int = 0
    tries: int = 0
    rejected: int = 0
    dropped: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    provider: str = ""
    by_type: dict[str, dict[str, int]] = field(default_factory=dict)

    def check(self) -> None:
        """Raise `NothingDoneError` or `PartialError` unless everything was made and kept."""
        if self.kept + self.healthy + self.refused == self.requested:
            return
        reasons = "".join(f"\n  {line}" for line in self.failed + self.dropped)
        made = self.kept + self.healthy
        text = f"{made} of {self.requested} samples were made{reasons}"
        raise (PartialError if made else NothingDoneError)(text)


@dataclass(frozen=True)
class JobState:
    """How far a job is, earlier runs included.

    done, total  samples that are settled, of those that were asked for
    kept         samples in the dataset
    """

    done: int
    total: int
    kept: int


@dataclass(frozen=True)
class _Listed:
    """An image of the folder, not yet read: its place there, its path and its path within."""

    index: int
    path: Path
    name: str


def synthesize(
    images: str | PathLike[str] | Iterable[Picture] | None = None,
    out: str | PathLike[str] | None = None,
    config: JobConfig | None = None,
    *,
    wait: bool = False,
    redo: bool = False,
    quiet: bool = False,
    progress: Callable[[JobState], None] | None = None,
    **options: Any,
) -> Summary:
    """Put defects into every image under ``images``, or into one, and write a dataset to ``out``.

    ``images`` may also be a list of arrays, [H,W] or [H,W,C], uint8 or uint16, of pictures of
    Pillow's and of paths of files; those without a name of their own are called 000000.png,
    000001.png … by their places.

    ``options`` are those of the command line and of `JobConfig`, by the same names; ``config``
    holds them all, and what is given beside it replaces what it says. Without ``out`` the dataset
    lies beside the images, and without ``defect`` the engine's types take turns.

    Images that cannot be used are listed in the summary; the rest goes on. The provider decides
    the last bits, so a job goes on with the one it began with. Whatever stopped a job, the same
    call goes on with it and ends with the same files; a call with other types and otherwise the
    same options adds these to it. ``progress`` is called at the beginning and after every sample.
    Ctrl-C, SIGTERM or SIGHUP finishes the samples at hand and raises `Cancelled`.

    Raises `OutputError` for another process that is writing to ``out``, unless told to ``wait``
    for it; `InputError` for an image, a mask or a region that was changed since samples were made
    with it, unless told to ``redo`` those samples; and the errors of `defectrt.errors` for
    everything that concerns the whole job, before anything is written.
    """
    if not isinstance(images, str | PathLike | None):
        if isinstance(images, np.ndarray | Image.Image):
            raise UsageError("images: one image alone; give a list of them, as in [image]")
        if out is None and (config is None or config.out is None):
            raise UsageError("nothing lies beside images in memory; give out")
        how: dict[str, Any] = {"wait": wait, "redo": redo, "quiet": quiet, "told": progress}
        with _in_folder(images) as folder:
            return _synthesize(_described(folder, out, config, options), hidden=folder, **how)
    config = _described(images, out, config, options)
    return _synthesize(config, wait=wait, redo=redo, quiet=quiet, told=progress)


def _described(
    images: str | PathLike[str] | None,
    out: str | PathLike[str] | None,
    config: JobConfig | None,
    options: Mapping[str, Any],
) -> JobConfig:
    given = {"images": images, "out": out}
    values = {**options, **{key: value for key, value in given.items() if value is not None}}
    return config.replace(**values) if config else JobConfig(**values)


def _synthesize(
    config: JobConfig,
    *,
    wait: bool,
    redo: bool,
    quiet: bool,
    told: Callable[[JobState], None] | None = None,
    hidden: Path | None = None,
) -> Summary:
    """One job; what lies in the folder ``hidden`` is told by its name alone."""
    out = config.dataset
    files = find_files(config.images) if config.images.is_dir() else []
    goods = _find_goods(config, files)
    folders = [p for p in config.mask_paths if p.is_dir()]
    if note := left_out_note([*files, *(path for p in folders for path in find_files(p))]):
        print(f"note: {note}", file=sys.stderr)
    with open_engine(config, len(goods) * config.count * config.candidates) as opened:
        types = types_made(opened, config)
        shares = shares_of(config.defect, types)
        makers = open_makers(opened, config, shares)
        if config.mixed:
            makers = dict.fromkeys((*shares, COMBINED), open_mixed(makers, config, shares))
        if config.healthy and not all(maker.healthy for maker in makers.values()):
            raise UsageError("healthy: like paints nothing; leave one of them out")
        record = _record(config, opened, types, shares, next(iter(makers.values())), goods)
        writer = DatasetWriter(out, config.category, shares, record, wait=wait)
        scheduler = Scheduler(opened, batch_size=batch_size_of(config, opened))
        with writer:
            asked = writer.journal.job[ASKED]
            makers |= open_makers(
                opened,
                config,
                {name: None for one in asked for name in one if name not in makers},
            )
            if len(asked) > 1 and not quiet:
                print(
                    f"note: {out} holds what was asked for so far: {_said(asked)}", file=sys.stderr
                )
            check_unchanged(config, writer, redo=redo)
            samples = _samples(config, asked, goods, next(iter(makers.values())))
            run = _Run(config, makers, writer, record, goods, samples, hidden)
            requested = run.requested.total()
            with (
                Progress(requested, "synthesize", quiet=quiet) as progress,
                asked_to_stop(lambda: quiet or print(_STOPPING, file=sys.stderr)) as stop,
            ):
                tell = told or (lambda state: None)
                tell(JobState(run.done, requested, run.kept))
                for task in scheduler.run(run.tasks(), stop):
                    run.settle(task.result())
                    progress.update(run.done, kept=run.kept)
                    tell(JobState(run.done, requested, run.kept))
                if note := _dark_note(run.dark):
                    print(note, file=sys.stderr)
                writer.finish(requested if config.shard else None)
                if run.done < requested:
                    raise Cancelled(
                        f"stopped after {run.done} of {requested} samples; "
                        "run the same command again to go on"
                    )
            finish(out, config.formats, splitting=splitting_of(config))
            return run.summary()


@contextmanager
def _in_folder(images: Iterable[Picture]) -> Iterator[Path]:
    """A folder that holds the images for as long as a job needs them."""
    with TemporaryDirectory(prefix="defectrt-") as name:
        folder, targets = Path(name), set[Path]()
        for place, image in enumerate(images):
            if isinstance(image, str | PathLike):
                target, data = folder / Path(image).name, read_input(Path(image), MAX_BYTES)
            else:
                target = folder / f"{place:06}.png"
                data = encode_png(read_given(image, f"image {place}"))
            if target in targets:
                raise UsageError(f"two images are called {target.name}; give a folder of them")
            target.write_bytes(data)
            targets.add(target)
        if strange := sorted(
            path.name for path in targets.difference(images_of(find_files(folder)))
        ):
            raise InputError(f"{strange[0]}: not called like an image (PNG, JPEG, TIFF or BMP)")
        if not targets:
            raise InputError("images: the list is empty")
        yield folder


def _record(
    config: JobConfig,
    engine: Engine,
    types: list[str],
    shares: dict[str, int],
    maker: Maker,
    goods: Sequence[_Listed],
) -> dict[str, Any]:
    """All that decides a job's samples; but for `ASKED` the same whatever the types."""
    shard = {SHARD: config.shard} if config.shard else {}
    healthy = {"healthy": config.healthy} if config.healthy else {}
    return (
        config.record()
        | shard
        | healthy
        | {
            ASKED: [shares],
            "batch_size": batch_size_of(config, engine),
            "steps": maker.steps,
            "category": config.category,
            "mark": config.mark,
            "engine": sha256_of((config.engine or BUNDLED_ENGINE) / MANIFEST),
            "provider": engine.provider,
            "defect_types": types,
            "images": digest(listed.name for listed in goods),
            "masks": maker.masks.record() | {"shape": config.shape},
        }
    )


def _samples(
    config: JobConfig, asked: Sequence[dict[str, int]], goods: Sequence[_Listed], maker: Maker
) -> Samples:
    """The samples of an image, by its place among the goods: their numbers and types."""
    names, mixed = [listed.name for listed in goods], maker.masks
    if not isinstance(mixed, Mixed):
        return Turns(asked, names, config.seed, config.count).of
    return lambda index: (
        (number, type_of_all(mixed.defects(names[index], number))) for number in range(config.count)
    )


def _said(asked: Sequence[dict[str, int]]) -> str:
    """The shares of several runs, for people."""
    return " and ".join(
        ",".join(name if share == 1 else f"{name}={share}" for name, share in shares.items())
        for shares in asked
    )


def _dark_note(names: Sequence[str]) -> str | None:
    """One line on images that hardly use their bits; None if there are none."""
    if not names:
        return None
    shown = _readable(first_of(names))
    return (
        f"note: {len(names)} images have 16 bits and use the lower {16 - DARK_BITS} of them at "
        f"most, so they are black to the model: {shown}; scale them to the full range (12 bits: "
        "times 16)"
    )


def _find_goods(config: JobConfig, files: Sequence[Path]) -> list[_Listed]:
    """The one image, or all among the folder's files but those of masks and results that lie below.

    Datasets of this program, whatever job they are of, hold no good images.
    """
    images = config.images
    if images.is_file():
        return [_Listed(0, images, images.name)]
    if not images.is_dir():
        raise InputError(f"{images}: no such folder of images, nor an image")
    root, *others = (folder.resolve() for folder in (images, config.dataset, *config.mask_paths))
    if root in others:
        raise UsageError(f"{images}: images, masks and results need a folder each")
    datasets = find_datasets(files)
    paths = [
        path
        for path in images_of(files)
        if datasets.isdisjoint(path.parents)
        and not any((root / path.relative_to(images)).is_relative_to(other) for other in others)
    ]
    if not paths:
        raise InputError(f"{images}: holds no images (PNG, JPEG, TIFF or BMP)")
    return [_Listed(i, p, p.relative_to(images).as_posix()) for i, p in enumerate(paths)]


class _Run:
    """One run of a job: what is left to do, and the account.

    requested   samples of each type that were asked for
    kept        samples in the dataset
    done        samples that are settled or could not be made
    dark        images that were read and hardly use their bits
    """

    def __init__(
        self,
        config: JobConfig,
        makers: Mapping[str, Maker],
        writer: DatasetWriter,
        record: dict[str, Any],
        goods: Sequence[_Listed],
        samples: Samples,
        hidden: Path | None = None,
    ) -> None:
        self._hidden = f"{hidden}{os.sep}" if hidden else ""
        self._config = config
        self._count, self._makers = config.count, makers
        self._writer, self._goods, self._samples = writer, goods, samples
        self._record = {key: record[key] for key in _RECORDED}
        self.dark = list[str]()
        self._mine = [listed for listed in goods if config.is_mine(listed.index)]
        self.requested = Counter(name for g in self._mine for _, name in samples(g.index))
        self._made = 0
        self.kept = writer.journal.count("kept")
        self._refused = writer.journal.count("refused")
        self._healthy = writer.journal.count("healthy")
        dropped = writer.journal.count("dropped")
        self.done = self.kept + self._healthy + self._refused + dropped

    def tasks(self) -> Iterator[Task[JournalEntry]]:
        """A task for every sample that is not settled."""
        for listed in self._mine:
            settled = self._writer.journal.settled(listed.index)
            left = [sample for sample in self._samples(listed.index) if sample not in settled]
            reading = Task(self._read(listed))
            memory = _memory_of(listed.path) if left else 0
            for number, defect in left:
                yield Task(self._make(listed, reading, number, defect), memory)

    def settle(self, entry: JournalEntry) -> None:
        """Take down what became of a sample."""
        self._writer.settle(entry)
        self._made += entry.state != "failed"
        self.kept += entry.state == "kept"
        self._healthy += entry.state == "healthy"
        self.done += 1

    def summary(self) -> Summary:
        """The account, with what earlier runs made."""
        journal = self._writer.journal
        dropped = [
            f"{e.source}, sample {e.number}, {e.defect}: {e.reason}"
            for e in journal.entries("dropped")
        ]
        failed = list(journal.entries("failed"))
        tries, rejected = journal.tries()
        requested = self.requested.total()
        return Summary(
            requested=requested,
            placed=requested - len(failed),
            generated=self.kept + self._healthy + self._refused + len(dropped),
            kept=self.kept,
            healthy=self._healthy,
            refused=self._refused,
            made=self._made,
            tries=tries,
            rejected=rejected,
            dropped=dropped,
            failed=list(dict.fromkeys(entry.reason for entry in failed)),
            provider=self._record["provider"],
            by_type=self._by_type(),
        )

    def _by_type(self) -> dict[str, dict[str, int]]:
        states: tuple[State, ...] = ("kept", "healthy", "dropped", "refused", "failed")
        kept, healthy, dropped, refused, failed = (
            Counter(self._writer.journal.by_type(state)) for state in states
        )
        return {
            name: {
                "requested": self.requested[name],
                "placed": self.requested[name] - failed[name],
                "generated": kept[name] + healthy[name] + dropped[name] + refused[name],
                "kept": kept[name],
            }
            for name in (*self._writer.journal.job["defect_types"], COMBINED)
            if self.requested[name]
        }

    def _make(
        self,
        listed: _Listed,
        reading: Task[tuple[SourceImage, dict[str, Any]]],
        number: int,
        defect: str,
    ) -> Work[JournalEntry]:
        """One sample, from reading its image to writing its files."""
        start, maker = monotonic(), self._makers[defect]
        record: dict[str, Any] = {}
        try:
            ((source, record),) = yield (reading,)
            placed = yield Call("masks", lambda: maker.places(source, number))
        except InputError as fault:
            told = str(fault).replace(self._hidden, "")
            name, reason = (_readable(text) for text in (listed.name, told))
            good = {key: record[key] for key in ("good",) if key in record}
            return JournalEntry(listed.index, number, defect, name, "failed", reason, record=good)
        healthy = self._is_healthy(listed.name, number)
        paint = maker.healthy if healthy and maker.healthy else maker.paint
        sample = yield from paint(source, number, placed)
        write = partial(self._write, listed, defect, sample, placed, record, healthy=healthy)
        record = yield Call("write", write)
        made: State = "healthy" if healthy else "kept"
        return JournalEntry(
            listed.index,
            number,
            defect,
            listed.name,
            "dropped" if sample.fault else made,
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
            if unused_bits(image) >= DARK_BITS:
                self.dark.append(listed.name)
            record = {"source": listed.name, "source_sha256": sha256_of(listed.path)}
            name = _number(listed.index, len(self._goods))
            record["good"] = self._writer.add_good(listed.index, name, image)
            return SourceImage(listed.name, image), record

        result: tuple[SourceImage, dict[str, Any]] = yield Call("read", read)
        return result

    def _is_healthy(self, source: str, number: int) -> bool:
        """Whether a sample is painted without a defect: of its seed, image and number alone."""
        drawn = np.random.default_rng([sample_seed(self._config.seed, source, number), _HEALTHY])
        return bool(drawn.random() < self._config.healthy)

    def _write(
        self,
        listed: _Listed,
        defect: str,
        sample: Sample,
        placed: Sequence[Placed],
        record: dict[str, Any],
        *,
        healthy: bool,
    ) -> dict[str, Any]:
        """Write a sample's files, unless it is none; returns its line in the manifest."""
        record = record | {
            "masks": [{"defect": p.defect or defect} | p.record for p in placed],
            "sample": sample.number,
        }
        record |= {"seed": sample.seed, "defect": defect, **self._record, **sample.figures}
        if sample.fault:
            return record
        name = _number(listed.index * self._count + sample.number, len(self._goods) * self._count)
        masks = _by_type(placed, defect).values()
        mark = self._mark(record, healthy=healthy)
        if healthy:
            paths = self._writer.write_healthy(name, defect, sample.image, mark)
        else:
            paths = self._writer.write(name, defect, sample.image, sample.label, masks, mark)
        _check(self._writer.out / paths["image"], sample)
        return paths | record

    def _mark(self, record: dict[str, Any], *, healthy: bool = False) -> Mark | None:
        if not self._config.mark:
            return None
        keys = ("engine", "provider", "source", "source_sha256", "sample", "defect")
        made = {key: record[key] for key in keys}
        return Mark.of(self._config, healthy=healthy, **made)


def _by_type(placed: Sequence[Placed], defect: str) -> dict[str, Mask]:
    """The masks of each type, in the order of the instances."""
    masks: dict[str, Mask] = {}
    for instance in placed:
        name = instance.defect or defect
        masks[name] = masks[name] | instance.mask if name in masks else instance.mask
    return masks


def _same_outside(one: Bits, two: Bits, band: Mask) -> bool:
    """Whether two images have the same bits outside the band [H,W]."""
    if not band.any():
        return np.array_equal(one, two)
    return not ((one != two) & ~band[..., None]).any()


def _memory_of(path: Path) -> int:
    """What a sample of an image will hold; of one that cannot be read, nothing."""
    try:
        return memory_of(*image_size(path))
    except DefectRTError:
        return 0


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
        parts = (slice(row, row + _ROWS) for row in range(0, len(source), _ROWS))
        if all(_same_outside(written[p], source[p], sample.band[p]) for p in parts):
            return
    raise OutputError(f"{image}: differs from its source outside the mask; is the disk sound?")
