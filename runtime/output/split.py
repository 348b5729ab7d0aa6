"""Which samples are for training, which for validation and which for the test."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from ..errors import InputError
from ..files import read_input, write_whole
from .records import KeptSample

__all__ = ["SPLIT", "Side", "Splitting", "read_splitting", "split", "write_splitting"]

#: How the formats of a folder are split, if not in the usual way.
SPLIT = "split.json"
#: Share of the workpieces whose samples are for validation.
_VAL_SHARE = 0.2
_LONGEST = 1 << 16


@dataclass(frozen=True)
class Splitting:
    """How samples are dealt.

    workpiece       regular expression on the source images' names: what its group matches, or all
                    of it, is the workpiece that is shown; without one, every source is its own
    test            share of the workpieces that is set apart to test on
    synthetic_test  whether their made defects are in the test too, and not their good images alone
    """

    workpiece: str | None = None
    test: float = 0.0
    synthetic_test: bool = False

    def workpiece_of(self, source: str) -> str:
        """The workpiece that a source image shows."""
        found = re.search(self.workpiece, source) if self.workpiece else None
        return "\0".join(found.groups("") or [found[0]]) if found else source


@dataclass
class Side:
    """The samples of one side, and the paths of all good images that belong to it."""

    entries: list[KeptSample] = field(default_factory=list)
    goods: list[str] = field(default_factory=list)


def split(entries: Sequence[KeptSample], how: Splitting | None = None) -> dict[str, Side]:
    """Samples for ``train``, ``val`` and, if there is to be one, ``test``.

    All of a workpiece is on one side. A fifth of the workpieces, chosen by the hashes of their
    names, is for validation, and at least one of two; what follows in that order is for the test.
    """
    how = how or Splitting()
    piece_of = {source: how.workpiece_of(source) for source in {e.source for e in entries}}
    pieces = sorted(
        set(piece_of.values()), key=lambda piece: hashlib.sha256(piece.encode()).digest()
    )
    val = max(1, round(_VAL_SHARE * len(pieces))) if len(pieces) > 1 else 0
    test = val + (max(1, round(how.test * len(pieces))) if how.test and len(pieces) > 2 else 0)
    side_of = {
        p: "val" if i < val else "test" if i < test else "train" for i, p in enumerate(pieces)
    }
    sides = {side: Side() for side in ("train", "val", *(["test"] if how.test else []))}
    for entry in entries:
        side = side_of[piece_of[entry.source]]
        sides[side].goods.append(entry.good)
        if side != "test" or how.synthetic_test:
            sides[side].entries.append(entry)
    for found in sides.values():
        found.goods = sorted(set(found.goods))
    return sides


def read_splitting(out: Path) -> Splitting:
    """How a folder's formats are split. Raises `InputError` if its file is damaged."""
    path = out / SPLIT
    if not path.is_file():
        return Splitting()
    try:
        return TypeAdapter(Splitting).validate_json(read_input(path, _LONGEST))
    except ValidationError as error:
        raise InputError(f"{path}: damaged ({error.errors()[0]['msg']}); remove it") from None


def write_splitting(out: Path, how: Splitting) -> None:
    """Keep how a folder's formats are split; the usual way needs no file."""
    if how == Splitting():
        (out / SPLIT).unlink(missing_ok=True)
    else:
        write_whole(out / SPLIT, TypeAdapter(Splitting).dump_json(how, indent=1) + b"\n")
