"""What comes out: the MVTec AD layout, a manifest, and nothing half-written.

OUT/<category>/train/good/000.png               the good pictures
OUT/<category>/test/good/004.png                every fifth of them, for the test
OUT/<category>/test/<defect>/000.png            pictures with a defect
OUT/<category>/ground_truth/<defect>/000_mask.png   their labels, 8 bit, 0 and 255
OUT/manifest.jsonl                              one line a sample
OUT/dropped.jsonl                               one line a sample that was made and not kept
OUT/job.json                                    what was asked for
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from .errors import InputError, OutputError, UsageError
from .files import PARTIAL, unwritable, write_whole
from .images import Bits, Mask, encode_png

__all__ = ["Dataset", "Key"]

#: A sample: the path of its picture under the folder of pictures, and its number.
Key: TypeAlias = tuple[str, int]

_FILES = ("image", "label")
#: One good picture in so many is for the test: without any, a detector cannot be told from one
#: that calls everything defective.
_TEST_SHARE = 5


class Dataset:
    """An output folder that is being filled.

    Every file is written under a temporary name and renamed, so that a file that is there is
    whole. A sample counts once its line is in the manifest; its files are written before.

    kept      samples in the manifest
    dropped   samples that were made and not kept, with the reason
    """

    def __init__(
        self, out: Path, category: str, defect: str, job: dict[str, Any], *, resume: bool
    ) -> None:
        """Open ``out`` for a job, or, with ``resume``, continue the same job.

        Raises `OutputError` if something is there already or it cannot be written, `InputError`
        if ``job`` is not the one that was started or its record is damaged, and `UsageError` if
        a name cannot be a folder's.
        """
        _check_names(category, defect)
        self._out, self._base, self._defect = out, out / category, defect
        self._manifest, self._dropped = out / "manifest.jsonl", out / "dropped.jsonl"
        try:
            self._open_job(job, resume=resume)
            self._remove_partial_files()
            self.kept = set(map(_key, self._recover_kept()))
            self.dropped = {
                _key(r): str(r["reason"]) for r in self._recover(self._dropped, "reason")
            }
        except OSError as error:
            raise OutputError(f"{out}: cannot be written ({error.strerror})") from error

    def __contains__(self, key: Key) -> bool:
        """Whether a sample was made already, be it kept or dropped."""
        return key in self.kept or key in self.dropped

    def add_good(self, index: int, name: str, picture: Bits) -> str:
        """Keep a good picture in train/good, every fifth in test/good; returns its path in OUT."""
        split = "test" if index % _TEST_SHARE == _TEST_SHARE - 1 else "train"
        path = self._base / split / "good" / f"{name}.png"
        if not path.exists():
            write_whole(path, encode_png(picture))
        return path.relative_to(self._out).as_posix()

    def write(self, name: str, picture: Bits, label: Mask) -> tuple[Path, Path]:
        """Write a sample's picture [H,W,C] and label [H,W]; it counts once it is in `keep`."""
        image = self._base / "test" / self._defect / f"{name}.png"
        truth = self._base / "ground_truth" / self._defect / f"{name}_mask.png"
        write_whole(truth, encode_png(label.astype(np.uint8) * np.uint8(255)))
        write_whole(image, encode_png(picture))
        return image, truth

    def keep(self, image: Path, label: Path, record: dict[str, Any]) -> None:
        """Add a sample's line to the manifest; paths are those that `write` returned."""
        files = (path.relative_to(self._out).as_posix() for path in (image, label))
        self._append(self._manifest, dict(zip(_FILES, files, strict=True)) | record)
        self.kept.add(_key(record))

    def drop(self, record: dict[str, Any], reason: str) -> None:
        """Note that a sample was made and is not kept, so that `resume` need not make it again."""
        self._append(self._dropped, record | {"reason": reason})
        self.dropped[_key(record)] = reason

    def _open_job(self, job: dict[str, Any], *, resume: bool) -> None:
        path = self._out / "job.json"
        self._out.mkdir(parents=True, exist_ok=True)
        if any(entry.suffix != PARTIAL for entry in self._out.iterdir()):
            if not resume:
                raise OutputError(
                    f"{self._out}: not empty; add --resume to go on, or choose another --out"
                )
            _compare_jobs(path, job)
        else:
            write_whole(path, (json.dumps(job, indent=1) + "\n").encode())

    def _remove_partial_files(self) -> None:
        for path in self._out.rglob(f".*{PARTIAL}"):
            path.unlink()

    def _recover_kept(self) -> list[dict[str, Any]]:
        """Samples in the manifest whose files are there; the others will be made again."""
        records = self._recover(self._manifest, *_FILES)
        whole = [r for r in records if all((self._out / r[k]).is_file() for k in _FILES)]
        if len(whole) < len(records):
            write_whole(self._manifest, b"".join(map(_line, whole)))
        return whole

    def _recover(self, path: Path, *keys: str) -> list[dict[str, Any]]:
        """All lines of a file but a last one that was cut off, which is removed."""
        if not path.exists():
            return []
        *lines, cut = path.read_bytes().split(b"\n")
        records = [_parse(path, i, line, keys) for i, line in enumerate(lines, 1)]
        if cut:
            write_whole(path, b"".join(map(_line, records)))
        return records

    def _append(self, path: Path, record: dict[str, Any]) -> None:
        try:
            with path.open("ab") as file:
                file.write(_line(record))
        except OSError as error:
            raise unwritable(path, error) from error


def _check_names(category: str, defect: str) -> None:
    faults = [
        f"{kind} {name!r} cannot be the name of a folder: use letters, digits, space . _ + -"
        for kind, name in (("category", category), ("defect", defect))
        if not re.fullmatch(r"\w[\w .+-]*", name)
    ]
    if defect == "good":
        faults.append("a defect cannot be named 'good': in this layout that means none")
    if faults:
        raise UsageError("; ".join(faults))


def _compare_jobs(path: Path, job: dict[str, Any]) -> None:
    """Refuse to go on with anything but the job that was started, and say what differs."""
    try:
        before = dict(json.loads(path.read_bytes()))
    except FileNotFoundError as error:
        raise OutputError(
            f"{path.parent}: not empty and without a {path.name}, so there is no job to go on "
            "with; choose another --out"
        ) from error
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: damaged ({error}); choose another --out") from error
    changed = [
        f"{key}: {before.get(key)!r} -> {job.get(key)!r}"
        for key in sorted(before.keys() | job.keys())
        if before.get(key) != job.get(key)
    ]
    if changed:
        raise InputError(
            f"{path.parent}: was started as another job ({'; '.join(changed)}); "
            "go on with the same options, or choose another --out"
        )


def _parse(path: Path, number: int, line: bytes, keys: tuple[str, ...]) -> dict[str, Any]:
    try:
        record = dict(json.loads(line))
        if not all(isinstance(record[key], str) for key in ("source", *keys)):
            raise TypeError("a value of another kind")
        int(record["sample"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: line {number} is damaged ({error}); without it, its sample is made again"
        ) from error
    return record


def _key(record: dict[str, Any]) -> Key:
    return record["source"], record["sample"]


def _line(record: dict[str, Any]) -> bytes:
    return json.dumps(record).encode() + b"\n"
