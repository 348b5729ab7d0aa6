"""Rows of results: one figure of one set, fold and type, with what it depends on."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from io import StringIO
from pathlib import Path
from typing import Any

from defectrt.errors import InputError
from defectrt.files import write_whole


@dataclass(frozen=True)
class Row:
    """One figure.

    kind      structural or logical
    category  of a dataset, and in which fold
    part      pictures (Tables 1, 3 and 4), detectors (2 and 5), counter (of drawn trays), landscape
    method    whose pictures, or what a detector was trained on
    type      of defect; empty: all
    low, high an interval of 95 %, where there is one
    made      pictures that were made; ``tested`` real ones (of detectors: with a defect)
    network   that the figure was seen by; empty: none
    """

    kind: str
    dataset: str
    category: str
    fold: int
    part: str
    method: str
    figure: str
    value: float
    low: float | None = None
    high: float | None = None
    type: str = ""
    made: int | None = None
    tested: int | None = None
    network: str = ""
    conditions: str = ""


def read_rows(path: Path) -> list[Row]:
    """The rows of a CSV file. Raises `InputError` saying which line is wrong."""
    try:
        lines = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    found = []
    for number, line in enumerate(lines, 2):
        try:
            found.append(Row(**{name: _value(name, text) for name, text in line.items()}))
        except (TypeError, ValueError) as error:
            raise InputError(f"{path}: line {number} is no result ({error})") from error
    return found


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write a CSV file, whole."""
    names = [field.name for field in fields(Row)]
    writer = csv.DictWriter(text := StringIO(), names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: _text(v) for k, v in asdict(row).items()} for row in rows)
    write_whole(path, text.getvalue().encode())


def figures_of(seen: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Figures of a network by name, each with its interval if it has one."""
    if "fid" in seen:
        yield "fid", {"value": seen["fid"]["value"]}
        yield "kid", {key: seen["kid"][key] for key in ("value", "low", "high")}
    for name in ("diversity", "diversity_within"):
        if seen.get(name):
            yield name, seen[name]
    if near := seen.get("nearest"):
        yield "nearest", {"value": near["made"][2]}
        yield "nearer_than_any_real", {"value": near["nearer_than_any_real"]}


def _value(name: str, text: str) -> Any:
    kind = {field.name: str(field.type) for field in fields(Row)}[name]
    if not text and "None" in kind:
        return None
    return {"int": int, "float": float}.get(kind.removesuffix(" | None"), str)(text)


def _text(value: object) -> object:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else value
