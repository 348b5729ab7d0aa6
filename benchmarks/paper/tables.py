"""The paper's tables from rows of results, as Markdown; into a page between its marks.

    python -m benchmarks.paper.tables benchmarks/results/paper.csv docs/paper.md

Every cell is the mean over folds (of a table's average, over all types too), and behind it each
fold's own. Figures of different networks stand in tables of their own.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from defectrt.errors import InputError
from defectrt.files import write_whole

from .config import MASKS, NAIVE, OURS, UNSEEN
from .rows import Row, read_rows

BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"
#: Methods as tables call them; others by their own names.
NAMES = {
    OURS: "Eq. 5",
    MASKS: "Eq. 5, labelled by its masks",
    UNSEEN: "Eq. 5, unseen backgrounds",
    NAIVE: "L′",
}
PICTURES = {
    "fid": ("FID", 1, 1),
    "kid": ("KID", 1, 3),
    "diversity": ("diversity", 1, 2),
    "diversity_within": ("within clusters", 1, 2),
    "nearer_than_any_real": ("nearer to training than any real one", 100, 0),
}
DETECTORS = {
    "image_auroc": ("image AUROC", 100, 1),
    "image_ap": ("AP", 100, 1),
    "image_f1": ("F1", 100, 1),
    "pixel_auroc": ("pixel AUROC", 100, 1),
    "pixel_ap": ("AP", 100, 1),
    "pixel_f1": ("F1", 100, 1),
    "pro": ("PRO", 100, 1),
}
Figures = dict[str, tuple[str, int, int]]
T = TypeVar("T")


def tables(rows: Sequence[Row]) -> str:
    """All tables that the rows have something for."""
    return "\n".join([*_conditions(rows), *_all(rows)])


def _all(rows: Sequence[Row]) -> Iterator[str]:
    for number, kind in (("1", "structural"), ("3", "logical")):
        own = [r for r in rows if r.part == "pictures" and r.kind == kind and r.method != NAIVE]
        for network in _once(r.network for r in own):
            seen = [r for r in own if r.network == network]
            title = f"Table {number}. Pictures of {kind} anomalies, seen by {network}"
            yield from _pictures(title, seen)
    for part, kind in (("a", "structural"), ("b", "logical")):
        own = [r for r in rows if r.part == "detectors" and r.kind == kind and r.method != MASKS]
        yield from _detectors(f"Table 2{part}. Detection of {kind} anomalies", own)
    own = [r for r in rows if r.part == "pictures" and r.method in (OURS, NAIVE)]
    own = [r for r in own if r.category in {o.category for o in own if o.method == NAIVE}]
    for network in _once(r.network for r in own):
        seen = sorted((r for r in own if r.network == network), key=lambda r: r.method)
        yield from _pictures(f"Table 4. L′ against Eq. 5, seen by {network}", seen)
    for kind in ("structural", "logical"):
        own = [r for r in rows if r.part == "detectors" and r.kind == kind]
        own = [r for r in own if r.method in (OURS, MASKS)]
        title = f"Table 5. Refinement of labels, {kind} anomalies"
        yield from _detectors(title, sorted(own, key=lambda r: r.method, reverse=True))
    yield from _counted([r for r in rows if r.part == "counter"])
    yield from _shapes([r for r in rows if r.part == "landscape"])


def _conditions(rows: Sequence[Row]) -> list[str]:
    return [f"- {text}" for text in _once(r.conditions for r in rows)] + [""]


def _pictures(title: str, rows: Sequence[Row]) -> Iterator[str]:
    """A line a category, type and method, and each method's average."""
    if not rows:
        return
    heads = [head for head, *_ in PICTURES.values()]
    yield from _begin(title, ["", "", "made / real", *heads])
    methods = _once(r.method for r in rows)
    for category, name in _once((r.category, r.type) for r in rows):
        of_type = [r for r in rows if (r.category, r.type) == (category, name)]
        for method in _once(r.method for r in of_type):
            own = [r for r in of_type if r.method == method]
            counts = f"{_by_fold(own, lambda r: r.made)} / {_by_fold(own, lambda r: r.tested)}"
            shown = f"{category}, {name}"
            yield _line([shown, NAMES.get(method, method), counts, *_values(own, PICTURES)])
    for method in methods:
        own = [r for r in rows if r.method == method]
        yield _line(["**average**", NAMES.get(method, method), "", *_values(own, PICTURES)])
    yield ""


def _detectors(title: str, rows: Sequence[Row]) -> Iterator[str]:
    if not rows:
        return
    heads = [head for head, *_ in DETECTORS.values()]
    tested = _by_fold(rows, lambda r: r.tested)
    categories = ", ".join(_once(r.category for r in rows))
    yield from _begin(
        f"{title}: {categories}; tested on {tested} pictures with a defect, fold by fold",
        ["", *heads],
    )
    for method in _once(r.method for r in rows):
        own = [r for r in rows if r.method == method]
        name = f"real + {NAMES[method]}" if method in NAMES else method
        yield _line([name, *_values(own, DETECTORS)])
    yield ""


def _counted(rows: Sequence[Row]) -> Iterator[str]:
    if not rows:
        return
    yield from _begin("Made trays that a counter finds right", ["type", "made", "right, %"])
    for name in _once(r.type for r in rows):
        own = [r for r in rows if r.type == name]
        right = _value(own, "right", 100, 0)
        yield _line([name, _by_fold(own, lambda r: r.made), right])
    yield ""


def _shapes(rows: Sequence[Row]) -> Iterator[str]:
    if not rows:
        return
    objectives = _once(r.method for r in rows)
    yield from _begin("Figure 4. Losses around the weights of one run", ["", *objectives])
    for figure in _once(r.figure for r in rows):
        own = [[r for r in rows if (r.figure, r.method) == (figure, o)] for o in objectives]
        yield _line([figure, *(f"{found[0].value:.3g}" if found else "–" for found in own)])
    yield ""


def _begin(title: str, heads: Sequence[str]) -> list[str]:
    return [f"**{title}**", "", _line(heads), _line(["---"] * len(heads))]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _values(rows: Sequence[Row], figures: Figures) -> list[str]:
    return [_value(rows, name, times, places) for name, (_, times, places) in figures.items()]


def _value(rows: Sequence[Row], figure: str, times: int, places: int) -> str:
    """The mean over folds, and each fold's own mean behind it; a dash where there is none."""
    own = [r for r in rows if r.figure == figure]
    folds = [_mean([times * r.value for r in own if r.fold == f]) for f in _folds(own)]
    if not folds:
        return "–"
    return f"{_mean(folds):.{places}f} ({', '.join(f'{v:.{places}f}' for v in folds)})"


def _by_fold(rows: Sequence[Row], count: Callable[[Row], int | None]) -> str:
    """A count that is the same in all rows of a fold and category, over the categories."""
    found = {(r.fold, r.category): count(r) or 0 for r in rows}
    return ", ".join(str(sum(n for (f, _), n in found.items() if f == k)) for k in _folds(rows))


def _folds(rows: Sequence[Row]) -> list[int]:
    return sorted({r.fold for r in rows})


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _once(values: Iterable[T]) -> list[T]:
    return list(dict.fromkeys(values))


def write_into(page: Path, rows: Sequence[Row]) -> None:
    """Put the tables between the marks of a page. Raises `InputError` if it has none."""
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise InputError(f"{page}: needs a line {BEGIN} and below it a line {END}")
    write_whole(page, f"{before}{BEGIN}\n{tables(rows)}\n{END}{after}".encode())


def main() -> None:
    """Read the command line and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", type=Path)
    parser.add_argument("page", type=Path)
    options = parser.parse_args()
    write_into(options.page, read_rows(options.rows))


if __name__ == "__main__":
    from .command import run_as_command

    run_as_command(main)
