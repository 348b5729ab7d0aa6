"""The paper's tables from rows, the rows in their file, and the configurations."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

from defectrt.errors import InputError, UsageError

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)


@pytest.fixture
def tables():
    return import_module("benchmarks.paper.tables")


@pytest.fixture
def rows():
    return import_module("benchmarks.paper.rows")


@pytest.fixture
def picture(rows):
    """A figure of pictures of pits."""
    return rows.Row(
        *("structural", "tiles", "tiles", 0, "pictures", "ours", "fid", 90.04),
        type="pit",
        made=100,
        tested=41,
        network="Lite",
        conditions="tiles: few",
    )


def lines(text, title):
    """The cells of the table below a title."""
    own = text.split(f"**{title}")[1].split("\n\n")[1]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in own.splitlines()]


def test_a_cell_is_the_mean_over_folds_with_each_fold_behind_it(tables, picture):
    other = replace(picture, fold=1, value=100, made=98, tested=30)
    crack = [replace(r, type="crack", value=50.0) for r in (picture, other)]
    text = tables.tables([picture, *crack, other])
    assert text.startswith("- tiles: few\n")
    head, _, pit, _, average = lines(
        text, "Table 1. Pictures of structural anomalies, seen by Lite"
    )
    assert head[:4] == ["", "", "made / real", "FID"]
    assert pit[:5] == ["tiles, pit", "Eq. 5", "100, 98 / 41, 30", "95.0 (90.0, 100.0)", "–"]
    assert average[3] == "72.5 (70.0, 75.0)"


def test_networks_and_kinds_are_never_in_one_table(tables, picture):
    others = [
        replace(picture, network="Inception", value=7),
        replace(picture, kind="logical", category="trays", value=8),
    ]
    text = tables.tables([picture, *others])
    for title, value in (
        ("Table 1. Pictures of structural anomalies, seen by Lite", "90.0 (90.0)"),
        ("Table 1. Pictures of structural anomalies, seen by Inception", "7.0 (7.0)"),
        ("Table 3. Pictures of logical anomalies, seen by Lite", "8.0 (8.0)"),
    ):
        assert [row[3] for row in lines(text, title)[2:]] == [value] * 2


def test_the_ablation_has_only_categories_that_were_ablated(tables, picture):
    naive = replace(picture, method="naive", value=120)
    elsewhere = replace(picture, category="steel", value=10)
    unseen = replace(picture, method="ours-unseen", value=95)
    text = tables.tables([picture, elsewhere, unseen, naive])
    found = lines(text, "Table 4. L′ against Eq. 5, seen by Lite")
    assert [row[:2] for row in found[2:4]] == [["tiles, pit", "L′"], ["tiles, pit", "Eq. 5"]]
    assert "steel" not in str(found)
    assert "unseen" not in str(found)
    assert "L′" not in str(lines(text, "Table 1."))


def test_detectors_say_how_many_defects_they_were_tested_on(tables, picture):
    detector = replace(picture, part="detectors", figure="pixel_ap", type="", made=None, network="")
    values = {"real alone": (0.25, 0.35), "ours": (0.5, 0.6), "ours-masks": (0.4, 0.5)}
    found = [
        replace(detector, method=method, fold=fold, value=value, tested=40 - fold)
        for method, pair in values.items()
        for fold, value in enumerate(pair)
    ]
    text = tables.tables(found)
    title = "Table 2a. Detection of structural anomalies: tiles; tested on 40, 39 pictures"
    main = lines(text, title)[2:]
    assert [(row[0], row[5]) for row in main] == [
        ("real alone", "30.0 (25.0, 35.0)"),
        ("real + Eq. 5", "55.0 (50.0, 60.0)"),
    ]
    refined = lines(text, "Table 5. Refinement of labels, structural anomalies")[2:]
    assert [row[0] for row in refined] == [
        "real + Eq. 5, labelled by its masks",
        "real + Eq. 5",
    ]


def test_rows_come_back_from_their_file(rows, picture, tmp_path):
    given = [picture, replace(picture, low=-0.5, high=None, made=None, conditions='a, "b"')]
    rows.write_rows(path := tmp_path / "r.csv", given)
    assert rows.read_rows(path) == given
    path.write_text(path.read_text().replace("90.04", "many"))
    with pytest.raises(InputError, match="line 2 is no result"):
        rows.read_rows(path)


def test_a_page_is_filled_between_its_marks(tables, picture, tmp_path):
    page = tmp_path / "p.md"
    page.write_text(f"before\n{tables.BEGIN}\nold\n{tables.END}\nafter\n")
    tables.write_into(page, [picture])
    text = page.read_text()
    assert text.startswith(f"before\n{tables.BEGIN}\n- tiles: few")
    assert text.endswith(f"{tables.END}\nafter\n")
    assert "old" not in text
    page.write_text("nothing")
    with pytest.raises(InputError, match="needs a line"):
        tables.write_into(page, [picture])


def test_the_page_says_what_the_results_say(tables, rows, tmp_path):
    page = tmp_path / "paper.md"
    page.write_text(kept := (ROOT / "docs" / "paper.md").read_text())
    tables.write_into(page, rows.read_rows(ROOT / "benchmarks" / "results" / "paper.csv"))
    assert page.read_text() == kept


def configured(text, tmp_path, **options):
    module = import_module("benchmarks.paper.config")
    (tmp_path / "c.yaml").write_text(text)
    given = {"model": None, "device": None, "threads": None, "data": []} | options
    return module.configured(tmp_path / "c.yaml", Namespace(**given))


def test_the_command_line_goes_over_the_file(tmp_path):
    text = (ROOT / "benchmarks" / "paper" / "paper.yaml").read_text()
    config = configured(text, tmp_path, model="sd15", data=["mvtec=/m", "loco=/l"], device="cuda")
    assert (config.model, config.device, config.instances, config.shots) == (
        "sd15",
        "cuda",
        100,
        None,
    )
    assert [str(d.path) for d in config.datasets.values()] == ["/m", "/l"]
    assert [len(d.categories) for d in config.datasets.values()] == [15, 5]
    assert (config.synthesis.steps, config.synthesis.background) == (50, "dual")
    small = configured((ROOT / "benchmarks" / "paper" / "small.yaml").read_text(), tmp_path)
    assert small.synthesis.background == "noised"
    assert small.datasets["trays"].path is None


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("datasets: {a: {path: b, colour: red}}", {}, "colour"),
        ("datasets: {a: {}}", {}, "path: needed"),
        ("datasets: {a: {path: b}}\ndetector: {steps: 0}", {}, "steps"),
        ("datasets: {a: {path: b}}\nothers: {naive: x}", {}, "naive is one of"),
        ("datasets: {a: {path: b}}", {"data": ["b=c"]}, "NAME=DIR"),
    ],
)
def test_what_is_not_possible_is_refused(text, options, said, tmp_path):
    with pytest.raises(UsageError, match=said):
        configured(text, tmp_path, **options)
