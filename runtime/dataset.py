"""What comes out: the MVTec AD layout, a manifest, and nothing half-written.

OUT/<category>/train/good/000.png               the good pictures
OUT/<category>/test/<defect>/000.png            pictures with a defect
OUT/<category>/ground_truth/<defect>/000_mask.png   their labels, 8 bit, 0 and 255
OUT/manifest.jsonl                              one line a sample
OUT/job.json                                    what was asked for
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from .errors import InputError, OutputError
from .images import Bits, Mask, encode_png

__all__ = ["Dataset"]


class Dataset:
    """An output folder that is being filled.

    Every file is written under a temporary name and renamed, so that a file that is there is
    whole. A sample counts once its line is in the manifest; its files are written before.
    """

    def __init__(
        self, out: Path, category: str, defect: str, job: dict[str, Any], *, resume: bool
    ) -> None:
        """Open ``out`` for a job, or, with ``resume``, continue the same job.

        Raises `OutputError` if something is there already or it cannot be written, and
        `InputError` if ``job`` is not the one that was started.
        """
        self._out, self._base, self._defect = out, out / category, defect
        self._manifest = out / "manifest.jsonl"
        if out.is_dir() and any(out.iterdir()) and not resume:
            raise OutputError(f"{out}: not empty; add --resume to go on, or choose another --out")
        try:
            out.mkdir(parents=True, exist_ok=True)
            self._open_job(job)
            self.done = self._read_done()
        except OSError as error:
            raise OutputError(f"{out}: cannot be written ({error.strerror})") from error

    def _open_job(self, job: dict[str, Any]) -> None:
        path = self._out / "job.json"
        if not path.exists():
            self._write(path, (json.dumps(job, indent=1) + "\n").encode())
            return
        try:
            before = json.loads(path.read_text())
        except ValueError as error:
            raise InputError(f"{path}: damaged ({error}); choose another --out") from error
        changed = [
            f"{key}: {before.get(key)!r} -> {job.get(key)!r}"
            for key in sorted(before.keys() | job.keys())
            if before.get(key) != job.get(key)
        ]
        if changed:
            raise InputError(
                f"{self._out}: was started as another job ({'; '.join(changed)}); "
                "go on with the same options, or choose another --out"
            )

    def _read_done(self) -> set[tuple[str, int]]:
        """Samples in the manifest; a last line that was cut off is dropped."""
        if not self._manifest.exists():
            return set()
        whole, _, cut = self._manifest.read_text().rpartition("\n")
        if cut:
            self._write(self._manifest, (whole + "\n" if whole else "").encode())
        records = [json.loads(line) for line in whole.splitlines()]
        return {(r["source"], r["sample"]) for r in records if (self._out / r["image"]).exists()}

    def add_good(self, name: str, picture: Bits) -> None:
        """Keep a good picture as ``train/good/<name>.png``."""
        path = self._base / "train" / "good" / f"{name}.png"
        if not path.exists():
            self._write(path, encode_png(picture))

    def add(self, name: str, picture: Bits, label: Mask, record: dict[str, Any]) -> None:
        """Write a sample: picture [H,W,C], label [H,W], and its line in the manifest."""
        image = self._base / "test" / self._defect / f"{name}.png"
        truth = self._base / "ground_truth" / self._defect / f"{name}_mask.png"
        self._write(truth, encode_png(label.astype(np.uint8) * np.uint8(255)))
        self._write(image, encode_png(picture))
        paths = {
            "image": image.relative_to(self._out).as_posix(),
            "label": truth.relative_to(self._out).as_posix(),
        }
        try:
            with self._manifest.open("a") as file:
                file.write(json.dumps({**paths, **record}) + "\n")
        except OSError as error:
            raise self._full(self._manifest, error) from error
        self.done.add((record["source"], record["sample"]))

    def _write(self, path: Path, data: bytes) -> None:
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(data)
            partial.replace(path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise self._full(path, error) from error

    @staticmethod
    def _full(path: Path, error: OSError) -> OutputError:
        return OutputError(
            f"{path}: cannot be written ({error.strerror}); what is there is whole, "
            "go on with --resume"
        )
