"""The arena: what it is told, its folds, its intervals, its table, and one run of all of it."""

from __future__ import annotations

import csv
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from support import datasets
from support.drawn import spot

from defectrt.errors import InputError, UsageError
from defectrt.training.data.layouts import GOOD
from defectrt.training.data.samples import read_good
from defectrt.training.proving import figures
from defectrt.training.proving.material import read_real
from defectrt.training.proving.runs import Run, Runs

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def arena(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    return lambda name: import_module(f"benchmarks.arena.{name}")


ROW = {"cut-paste": {"make": "cut-paste"}}


@pytest.mark.parametrize("name", ["magnetic_tile", "smoke"])
def test_the_configurations_that_come_along_can_be_read(name, arena):
    config = arena("config").load(ROOT / "benchmarks" / "arena" / f"{name}.yaml")
    assert "cut-paste" in config.rows


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"rows": ROW}, "either folds or dataset"),
        ({"rows": ROW, "folds": "f", "dataset": "d"}, "either folds or dataset"),
        ({"rows": {"a": {}}, "folds": "f"}, "one of make, folder and detect"),
        ({"rows": {"a": {"make": "x"}}, "folds": "f"}, "make 'x': one of AnomalyDiffusion"),
        ({"rows": {"a": {"detect": "x"}}, "folds": "f"}, "detect 'x': one of PatchCore"),
        ({"rows": ROW | {"Cut paste": {"make": "NSA"}}, "folds": "f"}, "told apart"),
        ({"rows": ROW, "folds": "f", "detector": {"seeds": 2}}, "seeds: the arena says that"),
        ({"rows": ROW, "folds": "f", "detector": {"stepps": 2}}, "did you mean steps"),
    ],
)
def test_what_cannot_be_is_refused_in_one_message(given, said, arena):
    with pytest.raises(UsageError, match=said):
        arena("config").ArenaConfig(name="n", **given)


def test_settings_of_a_detector_are_its_own(arena):
    anomaly = arena("anomaly")
    assert anomaly.settings_of("RD4AD", {"steps": "7"})["steps"] == 7
    with pytest.raises(UsageError, match="PatchCore: steps: has coreset"):
        anomaly.settings_of("PatchCore", {"steps": 1})


def mvtec(root):
    datasets.mvtec(root)
    return "crack"


def loco(root):
    datasets.loco(root)
    return "logical_anomalies"


def visa(root):
    base = datasets.visa(root) / "candle"
    for i in range(2):
        datasets.write(base / "Data/Images/Normal" / f"001{i}.JPG", datasets.image(30 + i))
        datasets.write(base / "Data/Images/Anomaly" / f"01{i}.JPG", datasets.image(40 + i))
        datasets.write(base / "Data/Masks/Anomaly" / f"01{i}.png", datasets.mask(1, x=9 * i))
    return "anomaly"


@pytest.mark.parametrize("draw", [mvtec, loco, visa])
def test_folds_of_the_published_layouts(draw, arena, tmp_path):
    defect_type = draw(tmp_path / "data")
    root = tmp_path / "data" / ("candle" if draw is visa else "")
    config = arena("config").ArenaConfig(
        name="n", dataset=root, types=(defect_type,), shots=1, rows=ROW
    )
    folds = arena("course").Course(config, tmp_path).folds
    assert [fold.name for fold in folds] == ["0", "1"]
    seen = []
    for fold in folds:
        shots, test = read_real(fold / "shots"), read_real(fold / "test")
        assert [s.defect_type for s in shots] == [defect_type]
        everything = {s.sha256() for s in read_real(fold / "all")}
        assert everything >= {s.sha256() for s in shots}
        assert not everything & {s.sha256() for s in test}
        assert {s.defect_type for s in test} == {defect_type, GOOD}
        seen.append(
            [{s.sha256() for s in side} for side in (shots + read_good(fold / "good"), test)]
        )
        assert not seen[-1][0] & seen[-1][1]
    assert seen[0][0] & seen[1][1]  # who learned in one is tested in the other


def test_folds_that_lack_something_are_named(arena, tmp_path):
    config = arena("config").ArenaConfig(name="n", folds=tmp_path, rows=ROW)
    course = arena("course")
    with pytest.raises(InputError, match="holds no folds"):
        course.Course(config, tmp_path).folds  # noqa: B018
    (tmp_path / "0" / "shots").mkdir(parents=True)
    with pytest.raises(InputError, match="0: lacks good, test"):
        course.Course(config, tmp_path).folds  # noqa: B018


@pytest.fixture
def judge(arena, tmp_path, monkeypatch):
    """Two folds and two seeds; ``good`` finds 90 % of the defects' pixels, ``poor`` 30 %."""
    monkeypatch.setattr(arena("judged"), "DRAWS", 100)
    types = np.array(["pit"] * 8 + [GOOD] * 8)
    test = figures.TestSet(
        tuple(f"p{i}" for i in range(16)),
        types,
        np.arange(16),
        np.arange(8),
        np.full(8, 10.0),
        np.full(8, 0.5),
    )
    runs, found = Runs(tmp_path), []
    for row, share in (("poor", 3), ("good", 9)):
        for fold in (0, 1):
            for seed in (0, 1):
                negative, positive = (np.zeros((n, figures.LEVELS), int) for n in (16, 8))
                negative[:, 100], positive[:, 100], positive[:, 200] = 90, 10 - share, share
                key = f"{row}{fold}{seed}"
                score = np.where(types == "pit", 2.0, 1.0) if row == "good" else np.ones(16)
                tally = figures.Tally(score, negative, positive)
                runs.add(Run(key, row, 0, seed, 1, 1.0, (), {}), tally)
                found.append(arena("judged").Finding(row, fold, seed, key))
    return arena("judged").Judge([test, test], found[:-1], runs)


def test_figures_are_over_both_folds_and_gains_are_paired(judge):
    assert judge.rounds("poor") == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert judge.rounds("good") == [(0, 0), (0, 1), (1, 0)]
    assert judge.figure("good", "image_auroc").mean == 1
    assert judge.figure("poor", "image_auroc").mean == 0.5
    found = judge.over("good", "poor", "pixel_ap")
    # of 80 defect pixels the share is found first, the rest comes with all 1440 sound ones
    ap = [s + (1 - s) * 80 / (80 + 1440) for s in (0.9, 0.3)]
    assert found.runs == 3
    assert found.mean == pytest.approx(ap[0] - ap[1])
    by_type = judge.by_type("good")
    assert sorted(by_type) == ["pit"]
    assert by_type["pit"] > judge.by_type("poor")["pit"]
    assert 0 < found.low <= found.mean <= found.high
    assert judge.over("good", "good", "pixel_ap") is None
    assert judge.over("good", "nobody", "pixel_ap") is None
    assert vars(judge.tested()) == {"defects": 16, "defective": 16, "good": 16, "workpieces": 32}


def line(table, row, **given):
    base = dict.fromkeys(table.columns(), "") | {"dataset": "tiles", "row": row, "trainings": "2"}
    base[table.BY_TYPE] = "hole 0.310; pit 0.400"
    base |= table.span("pixel_ap", table.Gain(0.5, 0.4, 0.6, 2))
    return base | table.span("image_auroc", table.Gain(0.8, None, None, 1)) | given


def test_rows_are_appended_and_the_newest_counts(arena, tmp_path):
    table, path = arena("table"), tmp_path / "arena.csv"
    table.add([line(table, "a"), line(table, "b")], path)
    table.add([line(table, "a"), line(table, "b", trainings="4")], path)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["row"], r["trainings"]) for r in rows] == [("a", "2"), ("b", "2"), ("b", "4")]
    kept = table.newest(rows)["tiles"]
    assert [(r["row"], r["trainings"]) for r in kept] == [("a", "2"), ("b", "4")]
    text = table.page(f"before\n{table.BEGIN}\nstale\n{table.END}\nafter", rows)
    assert "stale" not in text
    assert "| a | .500 (.400–.600) | hole .310; pit .400 | .800 |" in text
    assert table.page(text, rows) == text


def test_a_page_without_marks_is_refused(arena):
    with pytest.raises(InputError, match="lacks the marks"):
        arena("table").page("nothing", [])


def test_the_page_holds_the_table_of_the_results(arena):
    assert arena("table").main(["--check"]) == 0


def test_features_keep_their_angles_in_a_resnets_width(arena):
    """What RD4AD compares, cosines between pictures, are those of EfficientNet-Lite0 itself."""
    torch, anomaly = import_module("torch"), arena("anomaly")
    pictures = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    plain = anomaly.Lite0("", ["layer1", "layer3"])
    wide = type("Wide", (anomaly.Lite0,), {"as_resnet": True})("", ["layer1", "layer3"])
    assert (plain.out_dims, wide.out_dims) == ([24, 112], [64, 256])
    for one, other in zip(plain(pictures).values(), wide(pictures).values(), strict=True):
        cosines = [torch.cosine_similarity(f[0], f[1], dim=0) for f in (one, other)]
        assert torch.allclose(*cosines, atol=1e-5)


@pytest.mark.slow
def test_an_arena_from_a_dataset_to_its_table(arena, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for i in range(8):
        spot(Path("data/smoke/pit") / f"s{i}", i)
        spot(Path("data/smoke/good") / f"g{i}", 50 + i, depth=0)
        spot(Path(f"data/elsewhere/{i % 2}/pit") / f"e{i}", 90 + i)
    words = [str(ROOT / "benchmarks/arena/smoke.yaml"), "--out", "out", "--csv", "table.csv"]
    main = arena("__main__").main
    assert main(words) == 7
    said = capsys.readouterr()
    assert "an engine that is not there: left out: fold 0: engine lost: none is built" in said.err
    with Path("table.csv").open(newline="") as file:
        rows = {row["row"]: row for row in csv.DictReader(file)}
    assert [*rows] == ["real alone", "cut-paste", "made elsewhere"]
    assert all(
        (r["trainings"], r["folds"], r["test_defects"]) == ("2", "2", "8") for r in rows.values()
    )
    assert float(rows["cut-paste"]["make_peak_mib"]) > 10
    assert rows["made elsewhere"]["make_cpu_s"] == ""
    assert rows["made elsewhere"]["pixel_ap_over_cut_paste"]
    assert "| cut-paste |" in said.out

    before = {p: p.stat().st_mtime_ns for p in Path("out").rglob("*") if p.name != "sheet-0.png"}
    monkeypatch.setattr("benchmarks.arena.steps._run", None)  # nothing is made again
    assert main(words) == 7
    trained = [p for p in before if p.suffix in (".jsonl", ".npz") or "made" in p.parts]
    assert [p for p in trained if p.stat().st_mtime_ns != before[p]] == []
    assert len(Path("table.csv").read_text().splitlines()) == 4
