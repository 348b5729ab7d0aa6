"""What is said about a dataset is what is in it, and exit codes tell clean from faulty."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from support.datasets import SIZE, folders, image, loco, mask, mvtec, pairs, visa, write

from defectrt.training.cli.data import _LAYOUT_HELP
from defectrt.training.data.dataset import read_dataset
from defectrt.training.data.inspection import inspect
from defectrt.training.data.layouts import LAYOUTS
from defectrt.training.data.samples import GOOD


def look(root, **options):
    return inspect(read_dataset(root), **options)


def shown(report):
    console = Console(width=140)
    with console.capture() as capture:
        console.print(report.render(), soft_wrap=True)
    return capture.get()


def defectrt(*words):
    return subprocess.run(
        [sys.executable, "-c", "from defectrt.cli import main; main()", *map(str, words)],
        capture_output=True,
        text=True,
        env=os.environ,
        check=False,
    )


@pytest.mark.parametrize("make", [mvtec, loco, visa, pairs, folders])
def test_a_clean_dataset_has_no_problems(tmp_path, make):
    report = look(make(tmp_path))
    assert report.problems == []
    assert report.usable == sum(defect_type.images for defect_type in report.defect_types.values())
    assert list(report.defect_types)[-1] == GOOD


def test_figures_are_those_of_the_masks(tmp_path):
    root = folders(tmp_path)
    values = mask(h=2, w=3) | mask(y=20, x=5, h=10, w=40)
    write(root / "crack/masks/0.png", values)
    crack = look(root, window=32).defect_types["crack"]
    pixels = SIZE[0] * SIZE[1]
    assert crack.coverage == pytest.approx((48 / pixels, 227 / pixels, 406 / pixels))
    assert (crack.defects, crack.most, crack.smallest) == (3, 2, 6)
    assert crack.fit == pytest.approx(2 / 3)  # one is 40 px long
    assert crack.sizes == {"50x40": 2}
    assert crack.extended == 0
    assert look(root, window=41).defect_types["crack"].extended == 2


def test_areas_that_touch_at_a_corner_are_one(tmp_path):
    root = folders(tmp_path)
    write(root / "hole/masks/2.png", mask(y=2, x=2, h=3, w=3) | mask(y=5, x=5, h=3, w=3))
    assert look(root).defect_types["hole"].defects == 1


def test_every_problem_is_named(tmp_path):
    root = mvtec(tmp_path)
    (root / "ground_truth/crack/000_mask.png").unlink()
    write(root / "ground_truth/crack/001_mask.png", mask()[:20])
    write(root / "test/dent/000.png", image(30))
    write(root / "ground_truth/dent/000_mask.png", mask(h=1, w=3))
    shutil.copy(root / "train/good/000.png", root / "test/dent/001.png")
    write(root / "ground_truth/dent/001_mask.png", mask())
    whole = (root / "train/good/001.png").read_bytes()
    (root / "train/good/001.png").write_bytes(whole[: len(whole) // 2])
    report = look(root)
    found = {problem.name: problem.reason for problem in report.problems}
    assert found["test/crack/000.png"] == "it has no mask; expected 000_mask.png"
    assert found["test/crack/001.png"].startswith("ground_truth/crack/001_mask.png: the mask is 50")
    assert found["test/dent/000.png"] == "only 3 px of the mask are defect"
    assert found["train/good/001.png"].startswith("damaged or truncated")
    assert found["train/good/000.png"] == "the same image as test/dent/001.png, which is dent"
    assert len(found) == 5
    assert (report.defect_types["crack"].images, report.defect_types["crack"].usable) == (2, 0)
    text = shown(report)
    assert all(name in text and reason in text for name, reason in found.items())


def test_the_same_pixels_in_another_file_are_a_duplicate(tmp_path):
    root = folders(tmp_path)
    for i, level in enumerate((0, 9)):
        Image.fromarray(image(77)).save(root / f"good/{5 + i}.png", compress_level=level)
    (problem,) = look(root).problems
    assert problem.name == "good/6.png"
    assert problem.reason == "the same image as good/5.png"


def test_the_notes_tell_fringes_classes_and_what_is_not_used(tmp_path):
    assert "3 masks are smeared" in shown(look(pairs(tmp_path / "pairs")))
    root = loco(tmp_path / "loco")
    write(root / "thumbnails/a.png", image(5))
    text = shown(look(root))
    assert "missing_cable 255, extra_cable 254, broken_cable 239" in text
    assert "1 other images are not used: thumbnails/a.png" in text
    assert "test 4, train 1, validation 1" in text


def test_sixteen_bits_are_seen(tmp_path):
    root = folders(tmp_path)
    deep = (np.random.default_rng(5).random(SIZE) * 65535).astype(np.uint16)
    write(root / "good/1.png", deep)
    assert look(root).defect_types[GOOD].formats == {"8-bit colour": 1, "16-bit grey": 1}


@pytest.mark.slow
def test_exit_codes_and_json(tmp_path):
    root = mvtec(tmp_path / "bottle")
    clean = defectrt("data", "inspect", root, "--json", "--quiet")
    assert (clean.returncode, clean.stderr) == (0, "")
    assert json.loads(clean.stdout)["defect_types"]["crack"]["images"] == 2
    write(root / "ground_truth/crack/000_mask.png", mask(0))
    faulty = defectrt("data", "inspect", root, "--json")
    assert faulty.returncode == 7
    assert "1 problems" in faulty.stderr
    assert json.loads(faulty.stdout)["problems"][0]["name"] == "test/crack/000.png"
    assert defectrt("data", "inspect", tmp_path / "none").returncode == 3
    for path in root.rglob("*.png"):
        path.write_bytes(b"not an image")
    useless = defectrt("data", "inspect", root)
    assert useless.returncode == 3
    assert "no image in it can be used" in useless.stderr


@pytest.mark.slow
def test_a_split_is_made_from_the_command_line(tmp_path):
    root, out = mvtec(tmp_path / "bottle"), tmp_path / "split.json"
    result = defectrt("data", "split", root, "--fold", 0, "--out", out)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == str(out)
    assert "train: 4 images (crack 1, good 2, hole 1)" in result.stdout
    assert result.stderr == "note: no hole on the test side\n"
    assert {e["name"] for e in json.loads(out.read_text())["test"]} >= {"test/good/000.png"}
    assert defectrt("data", "split", root, "--fold", 0, "--out", out).returncode == 5
    neither = defectrt("data", "split", root, "--out", tmp_path / "x.json")
    assert neither.returncode == 2
    assert "one of --fold and --shots" in neither.stderr


@pytest.mark.slow
def test_help_names_every_layout_and_shows_examples():
    assert all(name in _LAYOUT_HELP for name in LAYOUTS)
    for command in ("inspect", "split"):
        assert f"defectrt data {command} data/" in defectrt("data", command, "--help").stdout


def test_the_page_shows_what_the_program_says_of_the_real_tiles(magnetic_tile):
    page = (Path(__file__).parents[3] / "docs" / "training-data.md").read_text()
    block = page.split("magnetic_tile --window 64\n")[1].split('\n\n"Covered"')[0]
    said = shown(look(magnetic_tile, window=64)).replace(str(magnetic_tile), "magnetic_tile")
    wanted = [line.removeprefix("    ").rstrip() for line in block.splitlines()]
    assert [line.rstrip() for line in said.rstrip().splitlines()] == wanted


def test_the_page_runs_on_the_real_tiles(magnetic_tile, monkeypatch):
    page = (Path(__file__).parents[3] / "docs" / "training-data.md").read_text()
    code = page.split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(magnetic_tile.parent)
    names: dict = {}
    exec(code, names)
    assert (len(names["samples"]), len(names["held_out"])) == (398, 398)
