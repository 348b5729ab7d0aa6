"""The table: rows of `benchmarks/results/arena.csv`, in the terminal and in `docs/arena.md`.

    python -m benchmarks.arena.table [--check]

writes the newest rows of every dataset between the marks of the page; ``--check`` only says whether
they are there already.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from io import StringIO
from pathlib import Path

from defectrt.errors import InputError
from defectrt.files import write_whole
from defectrt.training.proving.intervals import Gain

from .judged import Tested
from .steps import ROOT, Cost

__all__ = ["BY_TYPE", "CSV", "PAGE", "add", "columns", "markdown", "newest", "page"]

CSV = ROOT / "benchmarks" / "results" / "arena.csv"
PAGE = ROOT / "docs" / "arena.md"
BEGIN, END = "<!-- table: python -m benchmarks.arena.table -->", "<!-- end of table -->"
#: Figures with an interval, and those without.
WITH, PLAIN = ("pixel_ap", "image_auroc"), ("pixel_auroc", "pro", "pixel_f1", "image_f1")
GAINS = {
    "pixel_ap_over_real": ("real alone", "pixel_ap"),
    "pixel_ap_over_cut_paste": ("cut-paste", "pixel_ap"),
    "image_auroc_over_real": ("real alone", "image_auroc"),
    "image_auroc_over_cut_paste": ("cut-paste", "image_auroc"),
}

#: Pixel AP of each type, as text: every dataset has its own.
BY_TYPE = "pixel_ap_by_type"

Line = dict[str, str]


def columns() -> list[str]:
    """Of the CSV."""
    spans = [f"{n}{end}" for n in (*WITH, *GAINS) for end in ("", "_low", "_high")]
    tested, cost = ([*kind.__dataclass_fields__] for kind in (Tested, Cost))
    return [
        *("dataset", "row", "trainings", "folds", *spans, *PLAIN, BY_TYPE),
        *(f"test_{name}" for name in tested),
        *("made", *(f"make_{name}" for name in cost), *(f"engine_{name}" for name in cost)),
        *("train_s", "count", "detector", "cpus", "machine", "torch", "commit"),
    ]


def span(name: str, found: Gain | None) -> Line:
    """A figure and its ends as three columns."""
    values = (None,) * 3 if found is None else (found.mean, found.low, found.high)
    ends = zip(("", "_low", "_high"), values, strict=True)
    return {f"{name}{end}": "" if v is None else f"{v:.4f}" for end, v in ends}


def costs(kind: str, cost: Cost | None) -> Line:
    """What making, or learning the engine, took."""
    return {f"{kind}_{k}": str(v) for k, v in asdict(cost).items()} if cost else {}


def add(lines: Sequence[Line], path: Path = CSV) -> None:
    """Append those lines that are not the newest of their row already."""
    last = {(line["dataset"], line["row"]): line for line in _read(path)}
    filled = [dict.fromkeys(columns(), "") | line for line in lines]
    new = [line for line in filled if last.get((line["dataset"], line["row"])) != line]
    text = StringIO()
    writer = csv.DictWriter(text, columns(), lineterminator="\n")
    if not path.exists():
        writer.writeheader()
    writer.writerows(new)
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    write_whole(path, (before + text.getvalue()).encode())


def newest(lines: Iterable[Line]) -> dict[str, list[Line]]:
    """The last line of every row, by dataset, in the order of the first."""
    found = dict[str, dict[str, Line]]()
    for line in lines:
        found.setdefault(line["dataset"], {})[line["row"]] = line
    return {name: list(rows.values()) for name, rows in found.items()}


def markdown(lines: Sequence[Mapping[str, str]]) -> str:
    """One dataset's table."""
    head = "| | pixel AP | of each type | image AUROC | pixel AP over real alone "
    head += (
        "| pixel AP over cut-paste | image AUROC over real alone | trainings | made | CPU s | MiB |"
    )
    rows = [head, "|---|---|---|---|---|---|---|---|---|---|---|"]
    for line in lines:
        cells = [
            line["row"],
            _share(line, "pixel_ap"),
            line[BY_TYPE].replace(" 0.", " .") or "–",
            _share(line, "image_auroc"),
            *(_points(line, name) for name in (*GAINS,)[:3]),
            *(line[name] or "–" for name in ("trainings", "made")),
            *(_whole(line[name]) for name in ("make_cpu_s", "make_peak_mib")),
        ]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def page(text: str, lines: Iterable[Line]) -> str:
    """The page with the tables of all datasets between its marks."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise InputError(f"{PAGE}: lacks the marks {BEGIN} and {END}")
    parts = [
        f"**{name}.** {_tested(own[0])}\n\n{markdown(own)}" for name, own in newest(lines).items()
    ]
    return before + BEGIN + "\n\n" + "\n\n".join(parts) + "\n\n" + END + after


def _tested(line: Mapping[str, str]) -> str:
    return (
        f"Tested on {line['test_defects']} defects in {line['test_defective']} pictures and on "
        f"{line['test_good']} good ones, of {line['test_workpieces']} workpieces, in "
        f"{line['folds']} folds."
    )


def _share(line: Mapping[str, str], name: str) -> str:
    low, high = line[f"{name}_low"], line[f"{name}_high"]
    span = f" ({_short(low)}–{_short(high)})" if low else ""
    return _short(line[name]) + span


def _short(value: str) -> str:
    return f"{float(value):.3f}".replace("0.", ".", 1)


def _points(line: Mapping[str, str], name: str) -> str:
    if not line[name]:
        return "–"
    mean, low, high = (100 * float(line[name + e] or "nan") for e in ("", "_low", "_high"))
    return f"{mean:+.1f}" + (f" ({low:+.1f} to {high:+.1f})" if line[f"{name}_low"] else "")


def _whole(value: str) -> str:
    return f"{float(value):.0f}" if value else "–"


def _read(path: Path) -> list[Line]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def main(argv: Sequence[str]) -> int:
    """Write the page, or check it."""
    text = PAGE.read_text(encoding="utf-8")
    wanted = page(text, _read(CSV))
    if "--check" in argv:
        return int(wanted != text)
    write_whole(PAGE, wanted.encode())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
