"""The bundled engine, on drawn images and on real photographs where they are at hand."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import yaml
from support.outputs import records

from defectrt.config.job import SynthesizerConfig
from defectrt.engines.loading import BUNDLED_ENGINE, load_engine
from defectrt.engines.manifest import verify
from defectrt.images.compositing import feather
from defectrt.images.reading import read_image
from defectrt.masks.reading import read_mask
from defectrt.synthesis.job import synthesize
from defectrt.synthesis.maker import open_makers
from defectrt.synthesis.pipeline import SourceImage
from defectrt.synthesis.scheduler import Scheduler, Task
from defectrt.training.surfaces import DEFECT_TYPES as DEFECTS
from defectrt.training.surfaces import FAMILIES, draw

ROOT = Path(__file__).parents[3]
RECIPE = ROOT / "examples" / "bundled_engine" / "cpu"
#: What of the recipe the engine's manifest has to agree with.
_RECIPE = ("steps", "batch_size", "learning_rate", "cooldown", "guidance", "loose", "seed")


def test_the_bundled_engine_is_whole_small_and_speaks_of_no_machine():
    manifest = verify(BUNDLED_ENGINE)
    assert set(manifest.defect_types) == set(DEFECTS)
    sizes = [entry.size for entry in manifest.files.values()]
    assert max(sizes) < 16 << 20
    assert sum(sizes) < 30 << 20
    assert (manifest.image.height, manifest.image.width) == (96, 96)
    config = manifest.provenance.run["config"]
    assert config["objective"] == "disentangle"
    recipe = yaml.safe_load((RECIPE / "widen.yaml").read_text())
    assert {key: config[key] for key in _RECIPE} == {key: recipe[key] for key in _RECIPE}
    assert not re.search(r'"/\w', (BUNDLED_ENGINE / "engine.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("defect", ["scratch", "hole"])
def test_the_bundled_engine_makes_defects_on_the_examples(tmp_path, defect):
    images = ROOT / "examples" / "images"
    summary = synthesize(images, tmp_path / "out", defect=defect, quiet=True)
    assert summary.requested == 12
    assert summary.kept >= 11
    assert np.median([r["visibility"] for r in records(tmp_path / "out")]) > 0.06


class PaintsHealthy:
    """An engine that paints the good surface wherever it is asked for a defect."""

    def __init__(self, engine):
        self._engine = engine
        self._defects = [engine.manifest.prompt_indices(n).defect for n in DEFECTS]

    def __getattr__(self, name):
        return getattr(self._engine, name)

    def step(self, rows):
        inside = np.where(np.isin(rows.inside, self._defects), rows.outside, rows.inside)
        return self._engine.step(replace(rows, inside=inside))


def kept(engine, surfaces):
    """How many of the drawn surfaces show a defect, the types in turn."""
    config = SynthesizerConfig(retries=0)
    makers = open_makers(engine, config, sorted(DEFECTS))
    tasks = []
    for i, family in enumerate(surfaces):
        source = SourceImage(family, draw(7, family, 160)[0])
        maker = makers[sorted(DEFECTS)[i % len(DEFECTS)]]
        tasks.append(Task(maker.paint(source, 0, maker.places(source, 0))))
    return sum(task.result().fault is None for task in Scheduler(engine).run(tasks))


@pytest.mark.slow
def test_the_good_surface_painted_by_the_bundled_engine_is_no_defect():
    with load_engine(BUNDLED_ENGINE, threads=1) as engine:
        assert kept(engine, sorted(FAMILIES)) >= 9
        assert kept(PaintsHealthy(engine), sorted(FAMILIES)) <= 1


def load(name):
    """A script of the examples as a module."""
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location(name, ROOT / "examples" / "magnetic_tile" / f"{name}.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_tile_is_on_both_sides(magnetic_tile):
    prepare = load("prepare")
    for defect_type in ("Blowhole", "Crack", "Free"):
        images = sorted((magnetic_tile / f"MT_{defect_type}" / "Imgs").glob("*.jpg"))
        train, test = prepare.split(images, 0.3, np.random.default_rng(0))
        assert sorted(train + test) == images
        assert 0.15 < len(test) / len(images) < 0.45
        marked = [(int(re.search(r"num_(\d+)", p.name)[1]), p in test) for p in images]
        for (a, side_a), (b, side_b) in pairwise(sorted(marked)):
            assert side_a == side_b or b - a >= 200


@pytest.mark.slow
def test_real_tiles_keep_every_pixel_outside_the_band(magnetic_tile, tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    script = ROOT / "examples" / "magnetic_tile" / "prepare.py"
    words = [sys.executable, script, magnetic_tile, data, "--good", "3"]
    subprocess.run(words, check=True, capture_output=True)
    images, masks = data / "test" / "good", data / "masks" / "crack"
    summary = synthesize(images, out, masks=masks, defect="crack", quiet=True)
    assert summary.kept >= 2
    for r in records(out):
        source, result = read_image(images / r["source"]), read_image(out / r["image"])
        outside = feather(read_mask(masks / r["masks"][0]["file"], source.shape[:2]), 2, 4) == 0
        np.testing.assert_array_equal(result[outside], source[outside])
        assert (result != source).any()
    assert json.loads((out / "job.json").read_text())["defect"] == [{"crack": 1}]


@pytest.mark.slow
def test_the_contact_sheet_shows_what_the_program_writes(tmp_path):
    images = ROOT / "examples" / "images"
    synthesize(images, tmp_path / "out", defect="crack", quiet=True)
    script = ROOT / "examples" / "contact_sheet.py"
    words = [sys.executable, script, tmp_path / "out", tmp_path / "sheet.png", "--side", "64"]
    subprocess.run([*words, "--first", "4"], check=True, capture_output=True)
    sheet = read_image(tmp_path / "sheet.png")
    assert sheet.shape == (2 * 76 - 10, 2 * (3 * 66 + 10) - 10, 3)
    assert sheet[:64, 132:196].max() == 255  # the label is the third panel
