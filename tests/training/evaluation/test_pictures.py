"""A small drawn dataset end to end: figures, the page, the command, and what is refused."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from support.drawn import spot
from support.program import command_line

from defectrt.errors import InputError
from defectrt.training.data.samples import Sample
from defectrt.training.evaluation.config import PicturesConfig
from defectrt.training.evaluation.material import read_compared
from defectrt.training.evaluation.pictures import evaluate_pictures

pytestmark = pytest.mark.slow

#: What tells workpieces apart, in the names of the pictures.
PIECE = r"/([rs]\d+)[^/]*$"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Real spots held out, three that were learned from, and made ones: alike, faint, copied."""
    root = tmp_path_factory.mktemp("data")
    for i in range(12):
        spot(root / "real" / "spot" / f"r{i:02d}", i)
        spot(root / "alike" / "spot" / f"a{i:02d}", 100 + i)
        spot(root / "faint" / "spot" / f"f{i:02d}", 200 + i, depth=15, radius=9)
        spot(root / "copied" / "spot" / f"c{i:02d}", 300 + i % 3, radius=4 + i % 3)
    for i in range(3):
        spot(root / "shots" / "spot" / f"s{i}", 300 + i, radius=4 + i)
    return root


@pytest.fixture(scope="module")
def found(data, tmp_path_factory):
    """Of each made set."""
    out = tmp_path_factory.mktemp("out")
    config = PicturesConfig(
        real=(data / "real",), training=(data / "shots",), group=(PIECE,), most=9
    )
    sets = ("alike", "faint", "copied")
    return {name: evaluate_pictures(data / name, config, out=out / name) for name in sets}, out


def _figures(found, name):
    return next(iter(found[0][name]["types"]["spot"]["networks"].values()))


def test_faint_ones_are_further_from_real_ones(found):
    for figure in ("kid", "fid"):
        alike, faint = (_figures(found, n)[figure]["value"] for n in ("alike", "faint"))
        assert faint > 2 * abs(alike)
    alike, faint = (found[0][n]["types"]["spot"]["looks"] for n in ("alike", "faint"))
    for measure in ("area", "contrast"):
        assert faint[measure]["distance"] > 3 * alike[measure]["distance"]
    assert np.median(faint["area"]["made"]) > 2 * np.median(faint["area"]["real"])


def test_copies_are_found_though_every_other_figure_is_good(found):
    near = {n: _figures(found, n)["nearest"] for n in ("alike", "copied")}
    assert near["copied"]["nearer_than_any_real"] == 1
    assert near["copied"]["made"][2] < 1e-4
    assert near["alike"]["nearer_than_any_real"] < 0.5
    pair = near["copied"]["pairs"][0]
    assert pair["made"].startswith("spot/c")
    assert pair["training"].startswith("spot/s")
    within = {n: _figures(found, n)["diversity_within"]["value"] for n in ("alike", "copied")}
    assert within["copied"] < 0.1 * within["alike"]
    assert _figures(found, "copied")["clusters"] == {"around": "training", "count": 3}


def test_every_figure_names_its_network_and_every_picture_its_hash(found, data):
    body = json.loads((found[1] / "alike" / "evaluation.json").read_text())
    assert body == found[0]["alike"]
    (network,) = body["networks"]
    assert network["name"] == "EfficientNet-Lite0 (ImageNet)"
    assert len(network["sha256"]) == 64
    assert list(body["types"]["spot"]["networks"]) == [network["name"]]
    sides = body["inputs"]["spot"]
    assert {s: len(v) for s, v in sides.items()} == {"made": 9, "real": 9, "training": 3}
    path = data / "real" / "spot" / "r00.bmp"
    assert sides["real"]["spot/r00.bmp"] == Sample(path, "", None, None).sha256()
    assert any("FID of so few" in note for note in body["notes"])


def test_the_page_shows_it_and_loads_nothing(found):
    page = (found[1] / "copied" / "report.html").read_text()
    assert "://" not in page
    assert "EfficientNet-Lite0 (ImageNet)" in page
    assert page.count("100% nearer than any real one") == 4  # beside each figure of the network
    assert page.count("<svg") == 3
    assert page.count('src="data:image/png;base64,') == 8 * 3


def test_without_training_pictures_it_says_that_nothing_is_known(data, tmp_path):
    config = PicturesConfig(real=(data / "real",), group=(PIECE,), most=4)
    body = evaluate_pictures(data / "alike", config, out=tmp_path)
    figures = next(iter(body["types"]["spot"]["networks"].values()))
    assert figures["nearest"] is None
    assert figures["clusters"]["around"] == "real"
    assert body["types"]["spot"]["training"] is None
    assert "is not known" in body["notes"][0]
    assert "not known" in (tmp_path / "report.html").read_text()


def test_real_ones_of_a_workpiece_that_was_learned_from_are_left_out(data, tmp_path):
    shutil.copytree(data / "real", tmp_path / "real")
    spot(tmp_path / "real" / "spot" / "s1_again", 77)
    for end in ("bmp", "png"):  # the very picture
        shutil.copy(data / "shots" / "spot" / f"s0.{end}", tmp_path / "real" / "spot")
    config = PicturesConfig(real=(tmp_path / "real",), training=(data / "shots",), group=(PIECE,))
    material = read_compared(data / "alike", config)
    names = {s.path.stem for s in material.types["spot"].real}
    assert not {"s0", "s1_again"} & names
    assert len(names) == 12
    assert "1 real pictures are left out" in material.notes[0]


def test_types_of_other_names(data):
    config = PicturesConfig(real=(data / "shots",), same={"spot": "Spot"}, group=(PIECE,))
    assert list(read_compared(data / "alike", config).types) == ["spot"]
    with pytest.raises(InputError, match="made are spot, real are spot: name those"):
        read_compared(data / "alike", config.replace(same={"spot": "dent"}))
    with pytest.raises(InputError, match="--same dent"):
        read_compared(data / "alike", config.replace(same={"dent": "spot"}))


def test_the_command(data, tmp_path):
    words = ["evaluate", data / "copied", "--real", data / "real", "--training", data / "shots"]
    words += ["--group", PIECE, "--most", 4, "--out", tmp_path / "out"]
    done = command_line(*words)
    assert done.returncode == 0, done.stderr
    assert "seen by EfficientNet-Lite0 (ImageNet)" in done.stdout
    assert "100% nearer than any real one" in done.stdout
    assert "evaluate " in done.stderr
    assert (tmp_path / "out" / "report.html").is_file()
    as_json = command_line(*words, "--json", "--quiet")
    assert json.loads(as_json.stdout)["types"]["spot"]["made"] == 4
    assert "evaluate " not in as_json.stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--out", "o"], 2, "real"),
        (["--real", "REAL"], 2, "--out is needed"),
        (["--real", "REAL", "--out", "o", "--network", "vgg"], 2, "network 'vgg'"),
        (["--real", "REAL", "--out", "o", "--network", "alexnet=none.pth"], 3, "none.pth"),
        (["--real", "REAL", "--out", "o", "--steps", "3"], 2, "is no run"),
        (["--real", "nowhere", "--out", "o"], 3, "nowhere"),
        (["--real", "REAL", "--out", "o", "--same", "dent=spot"], 3, "--same dent"),
    ],
)
def test_one_message_and_the_right_code(data, tmp_path, monkeypatch, words, code, said):
    monkeypatch.chdir(tmp_path)
    words = [str(data / "real") if word == "REAL" else word for word in words]
    done = command_line("evaluate", data / "alike", *words)
    assert done.returncode == code
    assert said in done.stderr
    assert done.stderr.count("error: ") == 1
    assert not (tmp_path / "o").exists()


def test_a_run_knows_other_options(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    done = command_line("evaluate", tmp_path, "--real", tmp_path, "--most", "3")
    assert done.returncode == 2
    assert "is a run, for which --most is not" in done.stderr
    done = command_line("evaluate", tmp_path)
    assert done.returncode == 2
    assert "--real is needed once" in done.stderr
