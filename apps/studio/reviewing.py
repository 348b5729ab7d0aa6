"""A finished dataset as the page reviews it, and what was decided there."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from defectrt.config.base import Config
from defectrt.errors import InputError
from defectrt.images.png import encode_png
from defectrt.output.corrected import LABEL_BY
from defectrt.output.records import FinishedDataset, KeptSample, kept_sample, read_finished
from defectrt.output.refused import REFUSED
from defectrt.output.report import cut_outs, described
from defectrt.output.review import Decision, review

from .home import Drawn, drawn_of

__all__ = ["ReviewAsk", "carry_out", "dataset", "label", "sample"]


class LabelAsk(Config):
    """A label as it was drawn."""

    x: int
    y: int
    png: str


class DecisionAsk(Config):
    """One decision; ``as_made`` takes a correction of its label back."""

    image: str
    keep: bool
    reason: str = ""
    label: LabelAsk | None = None
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
    folder = read_finished(out)
    samples = [
        described(entry)
        | {
            "image": str(entry.record["image"]),
            "refused": str(entry.record.get("reason", "")),
            "label_by": str(entry.record.get(LABEL_BY, "")),
        }
        for entry in _all(folder)
    ]
    samples.sort(key=lambda sample: str(sample["image"]))
    return {"out": str(out), "category": folder.category, "samples": samples}


def sample(out: Path, image: str) -> dict[str, Any]:
    """The cut-outs of a sample. Raises `InputError` as `dataset` does, and for another name."""
    folder = read_finished(out)
    return cut_outs(folder, _found(folder, image))


def label(out: Path, image: str) -> Drawn | None:
    """The label of a sample."""
    folder = read_finished(out)
    return drawn_of(folder.label(_found(folder, image)))


def carry_out(ask: ReviewAsk) -> dict[str, int]:
    """What `defectrt review` does with the same decisions; raises as it does."""
    folder = read_finished(ask.out)
    decisions = [_decision(folder, one) for one in ask.decisions]
    done = review(ask.out, decisions, by=ask.by)
    return {"refused": done.refused, "restored": done.restored, "relabelled": done.relabelled}


def _decision(folder: FinishedDataset, ask: DecisionAsk) -> Decision:
    png = "" if ask.as_made else None
    if ask.label:
        size = folder.label(_found(folder, ask.image)).shape
        mask = Drawn(ask.label.x, ask.label.y, ask.label.png).mask((size[0], size[1]))
        png = base64.b64encode(encode_png(mask.astype(np.uint8) * np.uint8(255))).decode()
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


def _found(folder: FinishedDataset, image: str) -> KeptSample:
    for entry in _all(folder):
        if entry.record["image"] == image:
            return entry
    raise InputError(f"{image}: not a sample of {folder.out}")
