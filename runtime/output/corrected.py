"""Labels that a review corrected: the one that was made lies apart, so that it can come back."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..files import write_whole
from ..images.png import encode_png
from ..images.reading import read_image
from ..images.types import Mask, without_alpha
from .instances import as_levels
from .journal import JournalEntry
from .records import read_output

__all__ = ["LABEL_BY", "as_made", "corrected", "put_back"]

#: In a sample's record: who corrected its label; and the figures that it had before.
LABEL_BY, _BEFORE = "label_by", "made"
#: The folder in OUT that holds labels as they were made, under the paths that they had.
_APART = "made-labels"


def corrected(out: Path, entry: JournalEntry, label: Mask, by: str) -> JournalEntry:
    """Put a label [H,W] in the place of the one that was made; the entry that says so.

    The label that was made goes apart first. Until the entry is settled, `put_back` undoes it.
    """
    name = str(entry.record["label"])
    write_whole(out / _APART / name, read_output(out / name))
    data = encode_png(as_levels([label]))
    write_whole(out / name, data)
    figures = _figures(out, entry, label)
    before = {key: entry.record.get(key) for key in figures}
    record = entry.record | figures | {LABEL_BY: by, _BEFORE: before}
    return replace(
        entry, record=record, files=entry.files | {name: hashlib.sha256(data).hexdigest()}
    )


def as_made(out: Path, entry: JournalEntry) -> JournalEntry:
    """The entry with its label as it was made, which `put_back` moves once it is settled.

    Raises `InputError` if that label is gone.
    """
    name = str(entry.record["label"])
    apart = out / _APART / name
    if not apart.is_file():
        raise InputError(f"{apart}: gone, so the label cannot come back")
    record = {k: v for k, v in entry.record.items() if k not in (LABEL_BY, _BEFORE)}
    sha256 = hashlib.sha256(read_output(apart)).hexdigest()
    return replace(entry, record=record | entry.record[_BEFORE], files=entry.files | {name: sha256})


def put_back(out: Path, entry: JournalEntry) -> None:
    """Give a sample whose label is not noted as corrected the one that was made."""
    name = str(entry.record.get("label"))
    apart = out / _APART / name
    if LABEL_BY not in entry.record and apart.is_file():
        apart.replace(out / name)


def _figures(out: Path, entry: JournalEntry, label: Mask) -> dict[str, Any]:
    """Figures of a sample that follow from its label."""
    good, image = (read_image(out / str(entry.record[key])) for key in ("good", "image"))
    before, after = without_alpha(good)[label], without_alpha(image)[label]
    change = np.abs(after.astype(np.float32) - before).max(axis=1) / np.iinfo(good.dtype).max
    area = int(label.sum())
    return {
        "refined_area": area,
        "coverage": area / entry.record["mask_area"],
        "visibility": float(change.mean()),
    }
