"""What people decide about a finished dataset: samples that leave it, and such that come back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import InputError, UsageError
from ..files import parse_json, read_input
from ..images.png import from_base64
from ..images.reading import image_size
from ..images.types import Mask
from ..masks.reading import as_mask
from .corrected import LABEL_BY, as_made, corrected, put_back
from .dataset import DatasetWriter
from .formats import finish, written_formats
from .journal import JOURNAL, JournalEntry, asked_types
from .records import REQUESTED, read_finished
from .refused import bring_back, check_there, set_apart

__all__ = ["Decision", "Reviewed", "read_decisions", "review"]

_MAX_BYTES = 64 << 20
#: Of a name and of a reason, letters.
_LONG = 200


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Decision(_Strict):
    """One sample, by the path of its image in OUT: whether it stays, and why.

    ``label`` is a PNG in base64 of the image's size that is put in the place of its label, not 0
    is defect; empty, the label is again the one that was made.
    """

    image: str
    keep: bool
    reason: Annotated[str, Field(max_length=_LONG)] = ""
    label: str | None = None


class _Decisions(_Strict):
    by: Annotated[str, Field(max_length=_LONG)] = ""
    decisions: tuple[Decision, ...]


@dataclass(frozen=True)
class Reviewed:
    """What a review did: samples that it took out, that came back, and that are in the dataset.

    ``relabelled`` are those that have another label now.
    """

    refused: int
    restored: int
    kept: int
    relabelled: int = 0


def read_decisions(path: Path) -> tuple[str, tuple[Decision, ...]]:
    """A file of decisions, as the report saves it: who decided, and what.

    Raises `InputError` for a file that is none.
    """
    try:
        found = _Decisions(**parse_json(read_input(path, _MAX_BYTES)))
    except (ValueError, TypeError, ValidationError) as error:
        said = str(error).splitlines()[0]
        raise InputError(f"{path}: not a file of decisions ({said})") from None
    return found.by, found.decisions


def review(
    out: str | PathLike[str], decisions: Iterable[Decision], *, by: str, wait: bool = False
) -> Reviewed:
    """Carry out decisions about the samples of a finished dataset.

    What is refused leaves the dataset, is in no format and is never made again; its files go to
    ``OUT/refused``. What is to be kept and was refused comes back. A label that is corrected counts
    in every format, and the one that was made goes to ``OUT/made-labels``. Journal, manifest and
    ``refused.jsonl`` hold who decided: ``by``, a name of theirs. Stopped at any moment, the same
    call goes on.

    Raises `UsageError` without a name, `InputError` for a folder that is no finished dataset of a
    job, for files that are not as they were made, which the job alone makes again, and for a sample
    that it does not hold, before anything is changed; `OutputError` if another
    process is writing there, unless told to ``wait``, or if something cannot be moved.
    """
    out, name = Path(out), by.strip()
    if not name or len(name) > _LONG or not name.isprintable():
        raise UsageError("by: whose decisions are these? give a name with --by")
    dataset = read_finished(out)
    if not (out / JOURNAL).is_file():
        raise InputError(f"{out}: without a journal; review the datasets that it was merged from")
    formats = written_formats(out)
    types = asked_types(dataset.job, out)
    job = {key: value for key, value in dataset.job.items() if key != REQUESTED}
    writer = DatasetWriter(out, dataset.category, types, job, wait=wait, mend=False)
    with writer:
        entries = {
            entry.record["image"]: entry
            for state in ("kept", "refused")
            for entry in writer.journal.entries(state)
        }
        wanted = {decision.image: decision for decision in decisions}
        if strange := sorted(wanted.keys() - entries.keys()):
            raise InputError(f"{strange[0]}: not a sample of {out}")
        for image, decision in wanted.items():
            if decision.keep:
                check_there(out, entries[image])
        labels = {
            image: _label(out, entries[image], decision)
            for image, decision in wanted.items()
            if decision.label is not None
        }
        counts = {"refused": 0, "restored": 0, "relabelled": 0}
        for image, decision in wanted.items():
            if done := _carried_out(writer, entries[image], decision, name):
                counts[done] += 1
            if decision.label is not None:
                counts["relabelled"] += _relabelled(writer, entries[image], labels[image], name)
        writer.finish(dataset.job.get(REQUESTED))
        kept = writer.journal.count("kept")
        finish(out, formats)
    return Reviewed(kept=kept, **counts)


def _label(out: Path, entry: JournalEntry, decision: Decision) -> Mask | None:
    """The label of a decision, None for the one that was made.

    Raises `InputError` if it cannot be this sample's.
    """
    if not decision.keep:
        raise InputError(f"{decision.image}: refused, so it needs no other label")
    if not decision.label:
        return None
    if len({mask.get("defect") for mask in entry.record.get("masks", [])}) > 1:
        raise InputError(f"{decision.image}: of several types, so one label cannot stand for all")
    stored = from_base64(decision.label, grey=True)
    if stored is None:
        raise InputError(f"{decision.image}: its new label is no PNG in base64")
    good = out / str(entry.record["good"])
    return as_mask(stored, image_size(good), f"the new label of {decision.image}")


def _relabelled(writer: DatasetWriter, entry: JournalEntry, label: Mask | None, by: str) -> bool:
    """Give a sample that is kept now a label, or the one that was made; whether it is another."""
    entry = replace(entry, state="kept", reason="")
    was = LABEL_BY in entry.record
    if was:
        entry = as_made(writer.out, entry)
        writer.journal.settle(entry)
        put_back(writer.out, entry)
    if label is not None:
        writer.journal.settle(corrected(writer.out, entry, label, by))
    return was or label is not None


def _carried_out(
    writer: DatasetWriter, entry: JournalEntry, decision: Decision, by: str
) -> str | None:
    """Carry one decision out. While a sample is noted as refused, every writer sets it apart anew,
    so a stop in between leaves it refused and whole.
    """
    if decision.keep == (entry.state == "kept"):
        return None
    why = f"refused by {by}" + (f": {decision.reason}" if decision.reason else "")
    if decision.keep:
        bring_back(writer.out, entry)
        writer.journal.settle(replace(entry, state="kept", reason=""))
        return "restored"
    writer.journal.settle(replace(entry, state="refused", reason=why))
    set_apart(writer.out, entry)
    return "refused"
