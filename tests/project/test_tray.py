"""The counter that judges made trays: exact on drawn ones, and blind to no way of being wrong."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.outputs import write_folder

from defectrt.config.synthesis import SynthesisConfig
from defectrt.engines.loading import BUNDLED_ENGINE, load_engine
from defectrt.output.records import read_finished
from defectrt.synthesis.canvas import Canvas, View
from defectrt.synthesis.tiles import cut
from defectrt.training.data.dataset import read_dataset
from defectrt.training.surfaces.tray import ANOMALIES, LAYOUT, compartment, draw_tray

pytestmark = pytest.mark.slow  # it imports training


@pytest.fixture(scope="module")
def tray():
    sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
    yield import_module("tray")
    sys.path.pop(0)
    del sys.modules["tray"]


@pytest.mark.parametrize("anomaly", [None, *ANOMALIES])
def test_the_counter_is_exact_on_drawn_trays(tray, anomaly):
    for seed in range(20):
        drawn = draw_tray(90_000 + seed, anomaly)
        assert tray.count(drawn.image) == drawn.parts


@pytest.mark.parametrize("anomaly", ANOMALIES)
def test_an_anomaly_is_what_it_says_and_where(tray, anomaly):
    for seed in range(20):
        good, bad = draw_tray(seed), draw_tray(seed, anomaly)
        assert good.parts == LAYOUT
        assert not good.mask.any()
        cells = tray._cells(bad.mask)
        assert len(cells) == 1 + (anomaly == "swapped")
        assert bad.parts in tray.expected(anomaly, cells)
        assert bad.parts != LAYOUT
        differs = np.abs(bad.image.astype(int) - good.image).max(axis=2) > 40
        assert differs.any()
        assert not (differs & ~bad.mask).any()


def test_the_folder_is_of_loco_and_holds_its_classes(tray, tmp_path, monkeypatch):
    monkeypatch.setattr(tray, "GOOD", 2)
    monkeypatch.setattr(tray, "FRESH", 1)
    monkeypatch.setattr(tray, "SHOTS", 2)
    tray.draw(tmp_path)
    assert read_dataset(tmp_path / "loco").layout.name == "loco"
    samples = read_dataset(tmp_path / "loco", "loco-classes").samples()
    types = [s.defect_type for s in samples]
    assert sorted(types) == ["extra"] * 2 + ["good"] * 2 + ["missing"] * 2 + ["swapped"] * 2
    for sample in samples:
        cells = tray._cells(sample.mask)
        assert len(cells) == {"good": 0, "swapped": 2}.get(sample.defect_type, 1)
        assert sample.mask.sum() == len(cells) * sample.mask[compartment((0, 0))].size


def half_gone(image, cell):
    """As when a model takes only some of a part away."""
    out = image.copy()
    y, x = compartment(cell)
    out[y.start : y.start + 36, x] = out[y.start + 2, x.start + 2]
    return out


def test_what_is_not_right_is_told_from_what_is(tray, tmp_path):
    good, missing = draw_tray(3), draw_tray(3, "missing")
    (cell,) = tray._cells(missing.mask)
    known = (LAYOUT[cell[0]][cell[1]], ".")
    other = next(c for c in tray._all() if LAYOUT[c[0]][c[1]] not in known)
    elsewhere = np.zeros_like(missing.mask)
    elsewhere[compartment(other)] = True
    both = missing.image.copy()
    both[compartment(other)] = cv2.blur(missing.image, (41, 41))[compartment(other)]
    replaced = missing.image.copy()
    replaced[compartment(cell)] = good.image[compartment(other)]
    cases = {
        "right": (missing.image, missing.mask),
        "label elsewhere": (missing.image, missing.mask | elsewhere),
        "unchanged": (good.image, missing.mask),
        "no part": (half_gone(good.image, cell), missing.mask),
        "changed elsewhere": (both, missing.mask),
        "another anomaly": (replaced, missing.mask),
    }
    record = {"defect": "missing", "source": "a.png"}
    out = write_folder(
        tmp_path / "made",
        list(ANOMALIES),
        [(good.image, image, label, missing.mask, record) for image, label in cases.values()],
    )
    dataset = read_finished(out)
    assert [tray.verdict(dataset, entry) for entry in dataset.entries] == list(cases)
    assert tray.show(dataset).shape == (3 * 120, 2 * 160, 3)


def test_a_line_a_type_is_told(tray, tmp_path, monkeypatch, capsys):
    drawn = draw_tray(3, "swapped")
    record = {"defect": "swapped", "source": "a.png"}
    sample = (draw_tray(3).image, drawn.image, drawn.mask, drawn.mask, record)
    out = write_folder(tmp_path / "made", list(ANOMALIES), [sample] * 2, dropped=[record])
    monkeypatch.setattr(sys, "argv", ["tray.py", "count", str(out)])
    tray.main()
    assert json.loads(capsys.readouterr().out) == {
        "type": "swapped",
        "made": 2,
        "dropped": 1,
        "right": 2,
    }


@pytest.mark.parametrize("anomaly", ANOMALIES)
def test_what_a_perfect_model_paints_is_right_at_the_trays_own_resolution(tray, anomaly):
    """The anomaly itself, by the bundled autoencoder; parts that are gone leave no edge."""
    config = SynthesisConfig()
    with load_engine(BUNDLED_ENGINE) as engine:
        manifest = engine.manifest
        side, latent = manifest.image.height, (manifest.latent.height, manifest.latent.width)
        for seed in range(2):
            good, bad = draw_tray(seed), draw_tray(seed, anomaly)
            (tile,) = cut(bad.mask, 320, 0)
            view, wanted = (
                View(image, tile, config, side=side, latent=latent, whole=True)
                for image in (good.image, bad.image)
            )
            before, after = engine.decode(engine.encode(np.stack([view.pixels, wanted.pixels])))
            attention = np.ones((8, 8), np.float32)
            canvas = Canvas(good.image)
            canvas.paint(view, view.assess(0, before, before, after, attention, 0.0))
            assert tray.count(canvas.image) == bad.parts
            assert tray._cells(canvas.label) == tray._cells(bad.mask)
            assert (canvas.image == good.image)[~canvas.band].all()
