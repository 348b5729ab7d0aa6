"""A finished dataset as the page reviews it, and what was decided there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from defectrt.config.base import Config
from defectrt.errors import InputError
from defectrt.images.png import to_base64
from defectrt.output.corrected import LABEL_BY
from defectrt.output.instances import as_levels
from defectrt.output.records import (
    JOB,
    MANIFEST,
    REFUSED_LINES,
    FinishedDataset,
    KeptSample,
    kept_sample,
    read_finished,
)
from defectrt.output.refused import REFUSED
from defectrt.output.report import cut_outs, described
from defectrt.output.review import Decision, review

from .home import Drawn, drawn_of

__all__ = ["ReviewAsk", "carry_out", "dataset", "label", "sample"]


class DecisionAsk(Config):
    """One decision; ``as_made`` takes a correction of its label back."""

    image: str
    keep: bool
    reason: str = ""
    label: Drawn | None = None
    as_made: bool = False


class ReviewAsk(Config):
    """Decisions on a dataset, and whose they are."""

    out: Path
    by: str
    decisions: tuple[DecisionAsk, ...]


def dataset(out: Path) -> dict[str, Any]:
    """All samples with their figures, those that were taken out too.

    Raises `InputError` if the folder is not a finished job's.
    """
    folder, entries = _opened(out)
    samples = [
        described(entry)
        | {
            "image": str(entry.record["image"]),
            "refused": str(entry.record.get("reason", "")),
            "label_by": str(entry.record.get(LABEL_BY, "")),
        }
        for entry in entries.values()
    ]
    samples.sort(key=lambda sample: str(sample["image"]))
    return {"out": str(out), "category": folder.category, "samples": samples}


def sample(out: Path, image: str) -> dict[str, Any]:
    """The cut-outs of a sample. Raises `InputError` as `dataset` does, and for another name."""
    return cut_outs(*_found(out, image))


def label(out: Path, image: str) -> Drawn | None:
    """The label of a sample."""
    folder, entry = _found(out, image)
    return drawn_of(folder.label(entry))


def carry_out(ask: ReviewAsk) -> dict[str, int]:
    """What `defectrt review` does with the same decisions; raises as it does."""
    decisions = [_decision(ask.out, one) for one in ask.decisions]
    done = review(ask.out, decisions, by=ask.by)
    return {"refused": done.refused, "restored": done.restored, "relabelled": done.relabelled}


def _decision(out: Path, ask: DecisionAsk) -> Decision:
    png = "" if ask.as_made else None
    if ask.label:
        folder, entry = _found(out, ask.image)
        size = folder.label(entry).shape
        png = to_base64(as_levels([ask.label.mask((size[0], size[1]))]))
    return Decision(image=ask.image, keep=ask.keep, reason=ask.reason, label=png)


def _all(folder: FinishedDataset) -> Iterator[KeptSample]:
    """Kept samples, and those taken out, whose files lie elsewhere."""
    yield from folder.entries
    for record in folder.refused:
        entry = kept_sample(record, "refused.jsonl")
        yield replace(
            entry,
            image=f"{REFUSED}/{entry.image}",
            label=f"{REFUSED}/{entry.label}",
            mask=entry.mask and f"{REFUSED}/{entry.mask}",
        )


def _found(out: Path, image: str) -> tuple[FinishedDataset, KeptSample]:
    folder, entries = _opened(out)
    if image not in entries:
        raise InputError(f"{image}: not a sample of {folder.out}")
    return folder, entries[image]


def _opened(out: Path) -> tuple[FinishedDataset, dict[str, KeptSample]]:
    """A dataset and all its samples by their images; read once for all that a page asks for."""
    files = [out / name for name in (JOB, MANIFEST, REFUSED_LINES)]
    return _read(out, tuple(f.stat().st_mtime_ns if f.is_file() else 0 for f in files))


@lru_cache(maxsize=2)
def _read(out: Path, written: tuple[int, ...]) -> tuple[FinishedDataset, dict[str, KeptSample]]:
    folder = read_finished(out)
    return folder, {str(entry.record["image"]): entry for entry in _all(folder)}
