"""A card from drawn pictures: its figures by hand, its page, the command, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from support.drawn import SIDE, spot
from support.program import command_line
from torchmetrics.functional.classification import (
    binary_auroc,
    binary_average_precision,
    binary_precision_recall_curve,
)

from defectrt.errors import UsageError
from defectrt.training.thresholds.card import threshold_card
from defectrt.training.thresholds.config import ThresholdConfig

#: Forty good pictures, of scores 1 to 40; two in five share a workpiece with their neighbour.
GOOD = 40


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Good ones, synthetic spots of two sizes, and real ones; and what a detector says of them.

    Its map is how dark a pixel is, so that faint spots are missed.
    """
    root = tmp_path_factory.mktemp("data")
    for i in range(GOOD):
        spot(root / "good" / f"g{i:02d}", i, depth=0)
    for i in range(20):
        depth = 8 if i % 4 == 0 else 60
        spot(root / "made" / "spot" / f"m{i:02d}", 100 + i, radius=3 + i // 4 % 2 * 4, depth=depth)
    for i in range(12):
        depth = 8 if i % 2 == 0 else 60
        spot(root / "real" / "spot" / f"r{i:02d}", 200 + i, depth=depth)
    for path in root.rglob("*.bmp"):
        grey = np.asarray(Image.open(path).convert("L"), np.float32)
        out = root / "scores" / path.relative_to(root).with_suffix(".npy")
        out.parent.mkdir(parents=True, exist_ok=True)
        np.save(out, 255 - grey)
    return root


def _config(data, **more):
    given = {"good": (data / "good",), "scores": data / "scores", "false_alarms": 0.1}
    return ThresholdConfig(**given | more)


@pytest.fixture(scope="module")
def card(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("card")
    return threshold_card(data / "made", _config(data, real=(data / "real",)), out=out), out


def _maps(data, folder):
    return [np.load(p) for p in sorted((data / "scores" / folder).rglob("*.npy"))]


def test_the_threshold_keeps_the_alarms_it_was_asked_for(card, data):
    good = np.array([m.max() for m in _maps(data, "good")])
    t = card[0]["threshold"]
    assert (good >= t["value"]).mean() <= 0.1
    assert (good >= t["value"] * (1 - 1e-6)).mean() > 0.1
    assert t["low"] <= t["value"] <= t["high"]
    alarms = card[0]["false_alarms"]
    assert alarms["value"] == (good >= t["value"]).mean()
    assert alarms["count"] == alarms["workpieces"] == GOOD


def _masks(data, folder):
    return [np.asarray(Image.open(p)) > 0 for p in sorted((data / folder).rglob("*.png"))]


def test_what_is_found_at_it(card, data):
    """Those of full depth are; most of the faint ones are not."""
    for name, folder in (("synthetic", "made"), ("real", "real")):
        group, at = card[0]["groups"][name], card[0]["threshold"]["value"]
        maps, masks = _maps(data, folder), _masks(data, folder)
        hit = [m[mask].max() >= at for m, mask in zip(maps, masks, strict=True)]
        assert group["defects"]["value"] == np.mean(hit) < 1
        assert group["defects"]["low"] < np.mean(hit) < group["defects"]["high"]
        assert group["pictures"]["value"] == np.mean([m.max() >= at for m in maps])
        thirds = group["thirds"]
        assert thirds["contrast faint"]["value"] < thirds["contrast strong"]["value"] == 1
    made, real = (card[0]["groups"][n]["defects"]["value"] for n in ("synthetic", "real"))
    said = f"{100 * (made - real):.0f} points more often than real ones, within what chance does"
    assert said in card[0]["notes"][-1]


def test_a_limit_in_contrast_and_none_in_size(card):
    """8 levels of 150 are missed, 60 of 150 are found; the size does not matter."""
    found = card[0]["groups"]["synthetic"]["detection"]["contrast"]
    assert 8 / 150 < found["limit"] < 60 / 150
    assert found["sure"] is None or found["sure"] >= found["limit"]
    chance = card[0]["groups"]["synthetic"]["detection"]["area"]["chance"]
    assert max(chance) - min(chance) < 0.3


def test_figures_are_those_of_torchmetrics(card, data):
    good, bad = _maps(data, "good"), _maps(data, "real")
    masks = _masks(data, "real")
    figures = card[0]["groups"]["real"]["figures"]
    scores = torch.tensor(np.array([m.max() for m in (*good, *bad)]))
    truth = torch.tensor([0] * len(good) + [1] * len(bad))
    pixels = torch.tensor(np.concatenate([m.ravel() for m in (*good, *bad)]))
    empty = [np.zeros((SIDE, SIDE), bool)] * len(good)
    labels = torch.tensor(np.concatenate([m.ravel() for m in (*empty, *masks)])).long()
    for kind, said, true, near in (
        ("image", scores, truth, 1e-6),
        ("pixel", pixels, labels, 0.01),
    ):
        # scores are brought below 1, or torchmetrics takes them for logits
        said = said.double() / 256
        assert figures[f"{kind}_auroc"]["value"] == pytest.approx(
            float(binary_auroc(said, true)), abs=near
        )
        assert figures[f"{kind}_ap"]["value"] == pytest.approx(
            float(binary_average_precision(said, true)), abs=near
        )
        p, r, _ = binary_precision_recall_curve(said, true)
        best = float((2 * p * r / (p + r).clamp(min=1e-9)).max())
        assert figures[f"{kind}_f1"]["value"] == pytest.approx(best, abs=near)
    assert 0 < figures["pro"]["low"] <= figures["pro"]["value"] <= figures["pro"]["high"] <= 1


def test_the_threshold_that_defects_would_have_given(card, data):
    rules = {(r["rule"], r["from"]): r for r in card[0]["by_other_rules"]}
    assert len(rules) == 4
    bad = np.sort([m.max() for m in _maps(data, "real")])
    of_real = rules["finds 90%", "real"]
    assert of_real["threshold"] == bad[1]  # eleven of twelve; ten would be too few
    assert of_real["found"]["real"]["value"] == (bad >= bad[1]).mean()
    good = np.array([m.max() for m in _maps(data, "good")])
    assert of_real["false_alarms"]["value"] == (good >= bad[1]).mean() > 0.1


def test_the_page_shows_the_limit_and_loads_nothing(card):
    page = (card[1] / "report.html").read_text()
    assert json.loads((card[1] / "threshold.json").read_text()) == card[0]
    assert "://" not in page
    assert f"Alarm from {card[0]['threshold']['value']:.9g} on" in page
    assert page.count("<svg") == 2
    assert "Limit samples, real: the plainest that are missed" in page
    hits = [g["defects"] for g in card[0]["groups"].values()]
    missed = [round(h["count"] * (1 - h["value"])) for h in hits]
    shown = sum(min(8, m) + min(8, h["count"] - m) for m, h in zip(missed, hits, strict=True))
    assert page.count("<figure>") == shown > 12


def test_too_few_good_pictures_for_a_rate(data, tmp_path):
    card = threshold_card(data / "made", _config(data, false_alarms=0.001), out=tmp_path)
    assert card["false_alarms"]["value"] == 0
    assert "40 good pictures cannot show that no more than 0.10%" in card["notes"][0]
    assert "About 3,000 good pictures" in card["notes"][0]
    assert "no real defects are given" in card["notes"][-1]
    assert "by_other_rules" in card
    assert list(card["groups"]) == ["synthetic"]


def test_single_scores(data, tmp_path):
    scores = {
        p.relative_to(data).as_posix(): float(i) for i, p in enumerate(sorted(data.rglob("*.bmp")))
    }
    (tmp_path / "scores.json").write_text(json.dumps(scores))
    config = _config(data, scores=tmp_path / "scores.json", real=(data / "real",))
    card = threshold_card(data / "made", config, out=tmp_path / "out")
    assert card["scored"] == "pictures"
    assert card["groups"]["real"]["defects"]["value"] == 1  # they come last by name
    assert set(card["groups"]["real"]["figures"]) == {"image_auroc", "image_ap", "image_f1"}
    assert card["groups"]["real"]["figures"]["image_auroc"]["value"] == 1


def test_workpieces_count_not_pictures(data, tmp_path):
    config = _config(data, group=(r"(g\d|m\d+)\d?\.bmp",))
    card = threshold_card(data / "made", config, out=tmp_path)
    assert card["false_alarms"]["workpieces"] == 4
    assert any("40 good pictures are of 4 workpieces" in note for note in card["notes"])


def test_the_command(data, tmp_path):
    words = ["threshold", data / "made", "--good", data / "good", "--scores", data / "scores"]
    words += ["--false-alarms", "0.1", "--out", tmp_path / "out"]
    done = command_line(*words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("threshold ")
    assert "note: no real defects are given" in done.stderr
    as_json = command_line(*words, "--json", "--quiet")
    found = json.loads(as_json.stdout)["groups"]["synthetic"]["defects"]["value"]
    assert f"synthetic found {found:.1%}" in done.stdout


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "give one of --scores and --detector"),
        (["--scores", "SCORES", "--detector", "x {data} {out}"], 2, "give one of --scores"),
        (["--detector", "x {data}"], 2, "needs {data} and {out}"),
        (["--detector", "nothing-there {data} {out}"], 2, "cannot be run"),
        (["--scores", "SCORES", "--false-alarms", "0"], 2, "false_alarms"),
        (["--scores", "nowhere"], 3, "nowhere"),
        (["--scores", "SCORES", "--real", "nowhere"], 3, "nowhere"),
    ],
)
def test_one_message_and_the_right_code(data, tmp_path, monkeypatch, words, code, said):
    monkeypatch.chdir(tmp_path)
    words = [str(data / "scores") if word == "SCORES" else word for word in words]
    done = command_line("threshold", data / "made", "--good", data / "good", "--out", "o", *words)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert done.stderr.count("error: ") == 1
    assert not (tmp_path / "o").exists()


def test_one_source_of_scores():
    with pytest.raises(UsageError, match="give one of"):
        ThresholdConfig(good=("a",))


@pytest.mark.slow
def test_a_card_needs_no_torch(data, tmp_path):
    program = "import sys; sys.modules['torch'] = None\nfrom defectrt.__main__ import main\nmain()"
    words = ["threshold", data / "made", "--good", data / "good", "--scores", data / "scores"]
    command = [sys.executable, "-c", program, *map(str, words), "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
