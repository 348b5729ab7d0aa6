"""What comes out: the MVTec AD layout, a manifest, and nothing half-written.

OUT/<category>/train/good/000.png               the good images
OUT/<category>/test/good/004.png                every fifth of them, for the test
OUT/<category>/test/<defect>/000.png            images with a defect
OUT/<category>/ground_truth/<defect>/000_mask.png   their labels, 8 bit, 0 and 255
OUT/masks/<defect>/000.png                      where the defects were asked for
OUT/manifest.jsonl                              one line a sample
OUT/dropped.jsonl                               one line a sample that was made and not kept
OUT/failed.jsonl                                one line a sample that could not be made
OUT/job.json                                    what was asked for, by all runs
OUT/job.sqlite                                  the journal, see `defectrt.output.journal`

All but the journal depends on what was asked for alone: not on when, nor on how often the job
was stopped.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ..config.names import checked_category, is_name
from ..errors import OutputError, UsageError
from ..files import PARTIAL, sync_folder, write_lines, write_whole
from ..images.png import encode_png
from ..images.types import Bits, Mask
from .journal import JOURNAL, Journal, JournalEntry
from .records import JOB, MANIFEST

__all__ = ["DatasetWriter", "split_of_good"]

#: Files of a sample, by their names in its line of the manifest.
_FILES = ("image", "label", "mask", "good")
#: One good image in so many is for the test: without any, a detector cannot be told from one
#: that calls everything defective.
_TEST_SHARE = 5


def split_of_good(index: int) -> str:
    """Where a good image goes, by its place among them."""
    return "test" if index % _TEST_SHARE == _TEST_SHARE - 1 else "train"


class DatasetWriter:
    """An output folder that is being filled, and its journal.

    Every file is written under a temporary name and renamed, so that a file that is there is
    whole. A sample counts once it is in the journal; its files are written before.
    """

    def __init__(
        self,
        out: Path,
        category: str,
        defect_types: Iterable[str],
        job: dict[str, Any],
        *,
        wait: bool = False,
    ) -> None:
        """Open ``out`` for a job: an empty folder, or one in which this very job was begun.

        Raises `OutputError` if something else is there, if it cannot be written, or if another
        process is writing there, unless told to ``wait`` for it; `InputError` if ``job`` is not
        the one that was started or its journal is damaged; `UsageError` if a name cannot be a
        folder's.
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
        self._remove_partial_files()
        self._forget_what_is_gone()

    def add_good(self, index: int, name: str, image: Bits) -> str:
        """Keep a good image in train/good, every fifth in test/good; returns its path in OUT."""
        path = self._base / split_of_good(index) / "good" / f"{name}.png"
        write_whole(path, encode_png(image))
        return path.relative_to(self.out).as_posix()

    def write(self, name: str, defect: str, image: Bits, label: Mask, mask: Mask) -> dict[str, str]:
        """Write a sample's image [H,W,C], label [H,W] and mask [H,W]; returns paths in OUT.

        The sample counts once it is in the journal.
        """
        paths = {
            "image": self._base / "test" / defect / f"{name}.png",
            "label": self._base / "ground_truth" / defect / f"{name}_mask.png",
            "mask": self.out / "masks" / defect / f"{name}.png",
        }
        for path, bits in zip(paths.values(), (image, _grey(label), _grey(mask)), strict=True):
            write_whole(path, encode_png(bits))
        return {kind: path.relative_to(self.out).as_posix() for kind, path in paths.items()}

    def remove(self, entry: JournalEntry) -> None:
        """Remove a sample, so that it is made again; its good image is written anew then."""
        for key in ("image", "label", "mask"):
            if key in entry.record:
                (self.out / entry.record[key]).unlink(missing_ok=True)
        self.journal.forget(entry)

    def finish(self) -> None:
        """Write the manifest and what is beside it, and have all names on disk."""
        write_whole(self.out / JOB, (json.dumps(self.journal.job, indent=1) + "\n").encode())
        kept = (entry.record for entry in self.journal.entries("kept"))
        write_lines(self.out / MANIFEST, map(_line, kept))
        dropped = (e.record | {"reason": e.reason} for e in self.journal.entries("dropped"))
        write_lines(self.out / "dropped.jsonl", map(_line, dropped))
        failed = (
            {"source": e.source, "sample": e.number, "defect": e.defect, "reason": e.reason}
            for e in self.journal.entries("failed")
        )
        write_lines(self.out / "failed.jsonl", map(_line, failed))
        for folder in (self.out, *(path for path in self.out.rglob("*") if path.is_dir())):
            sync_folder(folder)

    def _remove_partial_files(self) -> None:
        for path in self.out.rglob(f".*{PARTIAL}"):
            path.unlink()

    def _forget_what_is_gone(self) -> None:
        """Samples whose files are not there will be made again."""
        for state in ("kept", "dropped"):
            gone = [e for e in self.journal.entries(state) if not self._is_whole(e)]
            for entry in gone:
                self.journal.forget(entry)

    def _is_whole(self, entry: JournalEntry) -> bool:
        names = (entry.record[key] for key in _FILES if key in entry.record)
        return all((self.out / name).is_file() for name in names)


def _check_names(category: str, defect_types: Iterable[str]) -> None:
    try:
        checked_category(category)
    except ValueError as fault:
        raise UsageError(f"category: {fault}") from None
    for defect in defect_types:
        if not is_name(defect):
            raise UsageError(
                f"defect {defect!r} cannot be the name of a folder: use letters, digits, space "
                ". _ + -"
            )
        if defect.lower() == "good":
            raise UsageError("a defect cannot be named 'good': in this layout that means none")


def _grey(mask: Mask) -> Bits:
    return mask.astype(np.uint8) * np.uint8(255)


def _line(record: dict[str, Any]) -> bytes:
    return json.dumps(record).encode() + b"\n"
