"""Limit samples: the same defect at every grade, told honestly, in one folder."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from support.fake_engine import FakeEngine
from support.outputs import save
from support.program import command_line

from defectrt.errors import InputError, NothingDoneError, OutputError, UsageError
from defectrt.images.reading import read_image
from defectrt.masks.examples import Examples, write_examples
from defectrt.masks.pieces import pieces
from defectrt.masks.places import Places
from defectrt.synthesis.series import series


@pytest.fixture
def good(tmp_path):
    grain = np.random.default_rng(0).normal(150, 4, (60, 80)).clip(0, 255)
    save(tmp_path / "good.png", grain.astype(np.uint8))
    mask = np.zeros((60, 80), np.uint8)
    mask[20:30, 30:44] = 255
    save(tmp_path / "mask.png", mask)
    return tmp_path / "good.png"


def test_every_size_at_every_strength_at_one_place(fake, good, tmp_path):
    out = tmp_path / "out"
    grades = series(
        image=good, mask=tmp_path / "mask.png", sizes="8,16", strengths="0.2,0.5", out=out
    )
    assert [(g.size, g.wanted) for g in grades] == [(8, 0.2), (8, 0.5), (16, 0.2), (16, 0.5)]
    assert [g.strength for g in grades] == pytest.approx([0.2, 0.5, 0.2, 0.5], abs=0.02)
    with (out / "series.csv").open() as table:
        lines = list(csv.DictReader(table))
    assert [line["image"] for line in lines] == [g.image for g in grades]
    before = read_image(good)
    for grade in grades:
        label = read_image(out / grade.mask)[..., 0] > 0
        assert label.sum() == grade.area
        ys, xs = np.nonzero(label)
        assert (ys.mean(), xs.mean()) == pytest.approx((24.5, 36.5), abs=1.5)
        changed = (read_image(out / grade.image) != before)[..., 0]
        assert changed.any()
        assert not changed[:8].any()
    small, large = grades[0].area, grades[2].area
    assert 3 < large / small < 5
    assert read_image(out / "sheet.png").shape == (2 * 178, 2 * 164, 3)


def test_without_a_mask_one_is_drawn_and_kept_for_all(fake, good, tmp_path):
    grades = series(image=good, strengths="0.2,0.6", out=tmp_path / "out")
    labels = {(tmp_path / "out" / grade.mask).read_bytes() for grade in grades}
    assert len(grades) == 2
    assert len(labels) == 1


def test_nothing_is_written_where_nothing_shows(fake, good, tmp_path):
    fake.blind, fake.level = True, 150 / 127.5 - 1  # it paints the surface itself
    with pytest.raises(NothingDoneError, match="no defect appeared, in every grade"):
        series(image=good, mask=tmp_path / "mask.png", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"sizes": "100"}, InputError, "sizes 100: larger than the image"),
        ({"sizes": "0"}, UsageError, "sizes: 1 to 4096 px"),
        ({"strengths": "0"}, UsageError, "strengths: above 0"),
        ({"strengths": "x"}, UsageError, "strengths"),
        ({"strengths": ()}, UsageError, "strengths: at least one"),
        ({"strengths": "0.2,0.2"}, UsageError, "each only once"),
        ({"sizes": "8,8.3"}, InputError, "two of them are the same in px"),
        ({"defect": "dust"}, UsageError, "dust"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    fake, good, tmp_path, options, error, said
):
    with pytest.raises(error, match=said):
        series(image=good, mask=tmp_path / "mask.png", out=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_one_type_has_to_be_named_where_there_are_several(opened_as, good, tmp_path):
    opened_as(FakeEngine(defect_types=("spot", "hole")))
    with pytest.raises(InputError, match="defect: one of spot, hole"):
        series(image=good, out=tmp_path / "out")


def test_what_is_there_is_not_written_over(fake, good, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputError, match="already there"):
        series(image=good, out=tmp_path / "out")


def test_from_the_command_line(fake, good, tmp_path):
    words = ["series", "--image", good, "--mask", tmp_path / "mask.png", "--strengths", "0.3,0.6"]
    done = command_line(*words, "--out", tmp_path / "a", "--json")
    assert done.returncode == 0, done.stderr
    assert [grade["wanted"] for grade in json.loads(done.stdout)] == [0.3, 0.6]
    told = command_line(*words, "--out", tmp_path / "b").stdout
    assert "14 px, 0.3 wanted: strength 0." in told
    assert "2 of 2 made" in told
    assert command_line(*words, "--out", tmp_path / "b").returncode == 5


def test_a_series_shows_one_defect_though_examples_show_several(fake, fake_engine, good, tmp_path):
    directory, _ = fake_engine
    disc, anywhere = np.ones((5, 5), bool), Places(low=0.0, high=10.0, at_frame=True)
    own = Examples.of([disc], [0.5], directed=False, places=anywhere, instances=[3])
    write_examples(directory, {"spot": own})
    grades = series(image=good, engine=directory, strengths="0.5", out=tmp_path / "out")
    label = read_image(tmp_path / "out" / grades[0].mask)[..., 0] > 0
    assert len(pieces(label, 2)) == 1
