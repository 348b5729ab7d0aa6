"""What comes out: the MVTec AD layout, a manifest, and nothing half-written.

OUT/<category>/train/good/000.png               the good images
OUT/<category>/test/good/004.png                every fifth of them, for the test
OUT/<category>/test/<defect>/000.png            images with a defect
OUT/<category>/ground_truth/<defect>/000_mask.png   their labels, 8 bit, 0 and 255
OUT/masks/<defect>/000.png                      where the defects were asked for: 255, and for
                                                further types in one image 254, 253 …
OUT/healthy/<defect>/000.png                    what was painted without a defect in its place
OUT/manifest.jsonl                              one line a sample
OUT/healthy.jsonl                               one line a sample that was painted healthy
OUT/dropped.jsonl                               one line a sample that was made and not kept
OUT/refused/                                    what a review took out, see `defectrt.output.review`
OUT/made-labels/                                labels as they were made, of those it corrected
OUT/failed.jsonl                                one line a sample that could not be made
OUT/job.json                                    what was asked for, by all runs
OUT/job.sqlite                                  the journal, see `defectrt.output.journal`

All but the journal depends on what was asked for alone: not on when, nor on how often the job
was stopped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from time import monotonic
from typing import Any

from ..closing import Closing
from ..config.names import checked_category, is_folder_name
from ..errors import InputError, OutputError, UsageError
from ..files import PARTIAL, sha256_of, sync_folder, write_lines, write_whole
from ..images.png import encode_png
from ..images.types import Bits, Mask
from .corrected import put_back
from .instances import as_levels
from .journal import FILES, JOURNAL, Journal, JournalEntry
from .mark import Mark, marked
from .records import HEALTHY, HEALTHY_LINES, JOB, MANIFEST, REQUESTED
from .refused import set_apart, write_refused

__all__ = ["DatasetWriter", "split_of_good"]

#: Seconds between two commits at least, while samples keep coming.
_MOMENT = 0.1
#: One good image in so many is for the test: without any, a detector cannot be told from one
#: that calls everything defective.
_TEST_SHARE = 5


def split_of_good(index: int) -> str:
    """Where a good image goes, by its place among them."""
    return "test" if index % _TEST_SHARE == _TEST_SHARE - 1 else "train"


class DatasetWriter(Closing):
    """An output folder that is being filled, and its journal.

    Every file is written under a temporary name and renamed, so that a file that is there is
    whole. A sample counts once it is in the journal, with the hashes of its files, which are
    written before; one whose files are no longer what was written is made again.
    """

    def __init__(
        self,
        out: Path,
        category: str,
        defect_types: Iterable[str],
        job: dict[str, Any],
        *,
        wait: bool = False,
        mend: bool = True,
    ) -> None:
        """Open ``out`` for a job: an empty folder, or one in which this very job was begun.

        Raises `OutputError` if something else is there, if it cannot be written, or if another
        process is writing there, unless told to ``wait`` for it; `InputError` if ``job`` is not
        the one that was started or its journal is damaged, and, unless what was changed or removed
        is to be made again (``mend``), for files that are not as they were written; `UsageError` if
        a name cannot be a folder's.
        """
        _check_names(category, defect_types)
        self.out, self._base = out, out / category
        try:
            out.mkdir(parents=True, exist_ok=True)
            names = {entry.name for entry in out.iterdir()}
        except OSError as error:
            raise OutputError(f"{out}: cannot be written ({error.strerror})") from error
        if names and JOURNAL not in names:
            raise OutputError(f"{out}: not empty and not a job's folder; choose another --out")
        self.journal = Journal(out / JOURNAL, job, wait=wait)
        self._written: dict[str, str] = {}
        self._unsettled: list[JournalEntry] = []
        self._committed = monotonic()
        try:
            self._remove_partial_files()
            for entry in self.journal.entries("kept"):
                put_back(out, entry)
            self._forget_what_is_gone(mend=mend)
            for entry in self.journal.entries("refused"):
                set_apart(out, entry)
        except BaseException:
            self.journal.close()
            raise

    def add_good(self, index: int, name: str, image: Bits) -> str:
        """Keep a good image in train/good, every fifth in test/good; returns its path in OUT."""
        path = self._base / split_of_good(index) / "good" / f"{name}.png"
        return self._write(path, image)

    def write(
        self,
        name: str,
        defect: str,
        image: Bits,
        label: Mask,
        masks: Iterable[Mask],
        mark: Mark | None = None,
    ) -> dict[str, str]:
        """Write a sample's image [H,W,C], label [H,W] and masks [H,W]; returns paths in OUT.

        There is a mask for each type of defect in the image, which carries the ``mark``. The sample
        counts once it is in the journal.
        """
        paths = {
            "image": self._base / "test" / defect / f"{name}.png",
            "label": self._base / "ground_truth" / defect / f"{name}_mask.png",
            "mask": self.out / "masks" / defect / f"{name}.png",
        }
        contents = image, as_levels([label]), as_levels(masks)
        return {
            kind: self._write(path, bits, mark if kind == "image" else None)
            for (kind, path), bits in zip(paths.items(), contents, strict=True)
        }

    def write_healthy(
        self, name: str, defect: str, image: Bits, mark: Mark | None = None
    ) -> dict[str, str]:
        """Write an image that was painted healthy where a ``defect`` would be; its path in OUT."""
        return {"image": self._write(self.out / HEALTHY / defect / f"{name}.png", image, mark)}

    def settle(self, entry: JournalEntry) -> None:
        """Take down what became of a sample, whose files are written.

        The journal has it after a moment, or with `commit`: of many samples a second each would
        wait for the disk alone. One that is not there after a kill is made again.
        """
        names = [entry.record[key] for key in FILES if key in entry.record]
        self._unsettled.append(replace(entry, files={name: self._written[name] for name in names}))
        if monotonic() - self._committed > _MOMENT:
            self.commit()
        for key in ("image", "label", "mask"):
            self._written.pop(entry.record.get(key, ""), None)

    def commit(self) -> None:
        """Have all that was taken down on disk."""
        if self._unsettled:
            self.journal.settle(*self._unsettled)
            self._unsettled.clear()
        self._committed = monotonic()

    def close(self) -> None:
        """Commit what can be, and let go of the journal."""
        try:
            self.commit()
        finally:
            self.journal.close()

    def remove(self, entry: JournalEntry) -> None:
        """Remove a sample, so that it is made again; its good image is written anew then."""
        for key in ("image", "label", "mask"):
            if key in entry.record:
                (self.out / entry.record[key]).unlink(missing_ok=True)
        self.journal.forget(entry)

    def finish(self, requested: int | None = None) -> None:
        """Write the manifest and what is beside it, and have all names on disk.

        A shard says how many samples were ``requested`` of it.
        """
        self.commit()
        job = self.journal.job | ({} if requested is None else {REQUESTED: requested})
        write_whole(self.out / JOB, (json.dumps(job, indent=1) + "\n").encode())
        kept = (entry.record for entry in self.journal.entries("kept"))
        write_lines(self.out / MANIFEST, map(_line, kept))
        healthy = [entry.record for entry in self.journal.entries("healthy")]
        if healthy:
            write_lines(self.out / HEALTHY_LINES, map(_line, healthy))
        else:
            (self.out / HEALTHY_LINES).unlink(missing_ok=True)
        write_refused(self.out, self.journal)
        dropped = (e.record | {"reason": e.reason} for e in self.journal.entries("dropped"))
        write_lines(self.out / "dropped.jsonl", map(_line, dropped))
        failed = (
            {"source": e.source, "sample": e.number, "defect": e.defect, "reason": e.reason}
            for e in self.journal.entries("failed")
        )
        write_lines(self.out / "failed.jsonl", map(_line, failed))
        for folder in (self.out, *(path for path in self.out.rglob("*") if path.is_dir())):
            sync_folder(folder)

    def _write(self, path: Path, bits: Bits, mark: Mark | None = None) -> str:
        """Write a PNG and keep its hash; returns its path in OUT."""
        self.journal.check()
        data, name = encode_png(bits), path.relative_to(self.out).as_posix()
        if mark:
            data = marked(data, mark)
        try:
            write_whole(path, data)
        except OutputError:
            self.journal.check()  # where all of OUT went, that is what there is to say
            raise
        self._written[name] = hashlib.sha256(data).hexdigest()
        return name

    def _remove_partial_files(self) -> None:
        for path in self.out.rglob(f".*{PARTIAL}"):
            path.unlink()

    def _forget_what_is_gone(self, *, mend: bool) -> None:
        """Samples whose files are not there, or are others, will be made again, or are refused."""
        is_there = lru_cache(maxsize=1024)(self._is_there)
        for state in ("kept", "healthy", "dropped"):
            gone = [
                (entry, name)
                for entry in self.journal.entries(state)
                if (name := next((n for n, h in entry.files.items() if not is_there(n, h)), None))
            ]
            if gone and not mend:
                raise InputError(
                    f"{self.out / gone[0][1]}: was changed or removed since it was made; run the "
                    "job's command again first"
                )
            for entry, _ in gone:
                self.journal.forget(entry)

    def _is_there(self, name: str, sha256: str) -> bool:
        """Whether a file is what was written."""
        path = self.out / name
        return path.is_file() and sha256_of(path) == sha256


def _check_names(category: str, defect_types: Iterable[str]) -> None:
    try:
        checked_category(category)
    except ValueError as fault:
        raise UsageError(f"category: {fault}") from None
    for defect in defect_types:
        if not is_folder_name(defect):
            raise UsageError(
                f"defect {defect!r} cannot be the name of a folder: use letters, digits, space "
                ". _ + -, up to 255 bytes"
            )
        if defect.lower() == "good":
            raise UsageError("a defect cannot be named 'good': in this layout that means none")


def _line(record: dict[str, Any]) -> bytes:
    return json.dumps(record).encode() + b"\n"
