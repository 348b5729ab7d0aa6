"""What the arena's makers write: labels where the picture changed, nothing changed elsewhere."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import cv2
import numpy as np
import pytest

from defectrt.errors import InputError, UsageError
from defectrt.training.data.layouts import GOOD
from defectrt.training.data.samples import Sample
from defectrt.training.proving.material import read_made

ROOT = Path(__file__).parents[2]
SIDE = 96


@pytest.fixture(autouse=True)
def makers(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    return import_module("benchmarks.arena.makers")


def surface(seed):
    grain = np.random.default_rng(seed).normal(130, 12, (SIDE, SIDE, 1))
    ramp = np.linspace(-30, 30, SIDE)[:, None, None] * (1 if seed % 2 else -1)
    return np.repeat((grain + ramp).clip(0, 255), 3, axis=2).astype(np.uint8)


@pytest.fixture
def good():
    none = np.zeros((SIDE, SIDE), bool)
    return [Sample(Path(f"g{i}.png"), GOOD, surface(i), none) for i in range(4)]


@pytest.fixture
def shots():
    found = []
    for i, name in enumerate(("hole", "hole", "crack")):
        image, mask = surface(20 + i), np.zeros((SIDE, SIDE), bool)
        mask[40:50, 30 : 44 if name == "hole" else 70] = True
        image[mask] = 20
        found.append(Sample(Path(f"s{i}.png"), name, image, mask))
    return found


def made(makers, name, shots, good, out, count=3, seed=0, **settings):
    makers.found(makers.MAKERS[name])(shots, good, count, seed, out, **settings)
    found = [p.sample for p in read_made(out).pictures]
    return {(s.defect_type, s.path.stem): s for s in found}


BY_TYPE, ANY = ("cut-paste", "Crop-Paste"), ("CutPaste", "Perlin", "NSA")


@pytest.mark.parametrize("name", [*BY_TYPE, *ANY])
def test_labels_are_where_the_picture_changed(name, makers, shots, good, tmp_path):
    own = made(makers, name, shots, good, tmp_path / "out")
    assert len(own) == 6
    assert {kind for kind, _ in own} == ({"hole", "crack"} if name in BY_TYPE else {"anomaly"})
    before = {g.path.stem: g.image.astype(int) for g in good}
    for (_, stem), sample in own.items():
        change = np.abs(sample.image - before[stem.rpartition("_")[0]]).max(axis=2)
        assert (change[sample.mask] > 0).mean() > 0.7
        if name == "NSA":  # patches are labelled from a change on that can be seen
            assert (change[~sample.mask] > 0.1 * 255).mean() < 0.02
        else:
            rim = np.ones((11, 11), np.uint8) if name == "cut-paste" else np.ones((1, 1), np.uint8)
            near = cv2.dilate(sample.mask.astype(np.uint8), rim) > 0
            assert change[~near].max() == 0


@pytest.mark.parametrize("name", [*BY_TYPE, *ANY])
def test_the_seed_alone_decides(name, makers, shots, good, tmp_path):
    one, again, other = (
        made(makers, name, shots, good, tmp_path / str(i), count=2, seed=seed)
        for i, seed in enumerate((1, 1, 2))
    )
    assert one.keys() == again.keys()
    assert all((one[n].image == again[n].image).all() for n in one)
    assert one.keys() != other.keys() or any((one[n].image != other[n].image).any() for n in one)


def test_crop_paste_keeps_the_defects_own_pixels(makers, shots, good, tmp_path):
    for sample in made(makers, "Crop-Paste", shots, good, tmp_path).values():
        assert (sample.image[sample.mask] == 20).all()


def test_perlin_takes_foreign_textures(makers, shots, good, tmp_path):
    folds = import_module("benchmarks.arena.folds")
    flat = Sample(Path("t.png"), GOOD, np.full((SIDE, SIDE, 3), 90, np.uint8), good[0].mask)
    folds.write_samples([flat], tmp_path / "textures")
    own, foreign = (
        made(makers, "Perlin", shots, good, tmp_path / str(i), count=8, **settings)
        for i, settings in enumerate(({}, {"textures": str(tmp_path / "textures")}))
    )
    spread = [[s.image[s.mask].std() for s in made.values()] for made in (own, foreign)]
    assert np.median(spread[1]) < 0.6 * np.median(spread[0])  # a flat one hides the grain


@pytest.mark.parametrize("name", [*BY_TYPE, *ANY])
def test_shots_without_a_defect_are_one_message(name, makers, good, tmp_path):
    with pytest.raises(InputError, match="show no defect"):
        made(makers, name, good, good, tmp_path)


def test_defects_that_fit_nowhere_are_one_message(makers, shots, good, tmp_path):
    none = np.zeros((4, 4), bool)
    small = [Sample(Path("g.png"), GOOD, good[0].image[:4, :4], none)]
    with pytest.raises(InputError, match="no defect fits"):
        made(makers, "Crop-Paste", shots, small, tmp_path)


@pytest.fixture
def outside():
    return import_module("benchmarks.arena.outside")


def test_a_package_that_is_not_there_says_how_to_get_it(outside, monkeypatch):
    monkeypatch.setattr(outside, "_PLACES", ())
    monkeypatch.setattr(outside, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="run pip install"):
        outside.reached("defect_synthesis")


def test_defect_synthesis_draws_the_types_it_is_told(makers, outside, shots, good, tmp_path):
    try:
        outside.reached("defect_synthesis")
    except UsageError as error:
        pytest.skip(str(error))
    with pytest.raises(UsageError, match="crack: 'rust' is none of"):
        made(makers, "defect-synthesis", shots, good, tmp_path, types={"crack": "rust"})
    types = {"crack": "crack", "hole": "pit"}
    own = made(makers, "defect-synthesis", shots, good, tmp_path / "out", types=types)
    assert {kind for kind, _ in own} == {"crack", "hole"}
