"""The recipe of the bundled engine, from nothing to an engine, with a model that knows nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from defectrt.engines.loading import load_engine

RECIPE = Path(__file__).parents[3] / "examples" / "bundled_engine"
TESTS = Path(__file__).parents[2]
#: The program, which fills the denoiser's graph instead of exporting it. The autoencoder's holds
#: the scale of its latents, which the recipe trains, as constants.
PROGRAM = """#!{python}
import sys
from pathlib import Path
from unittest.mock import patch
sys.path.insert(0, "{tests}")
from support.graphs import EXPORT, filled
from defectrt.cli import main
with patch(EXPORT, filled(Path("{graphs}"), {{"next_latent"}})):
    main()
"""
STAGES = ("autoencoder", "decoder", "base", "fine-tune", "widen")


@pytest.fixture
def recipe(tmp_path):
    """The script beside a recipe of two steps a stage, which takes its other values from cpu's."""
    shutil.copy(RECIPE / "train.sh", tmp_path)
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "recipe.env").write_text("COUNT=12 SIZE=48 WINDOW=32 MODEL=tiny HALF=\n")
    small = {"steps": 2, "batch_size": 2, "window": 32, "preview_every": 0}
    for stage in STAGES:
        lines = (RECIPE / "cpu" / f"{stage}.yaml").read_text().splitlines()
        kept = [line for line in lines if line.split(":")[0] not in small]
        text = "\n".join(kept + [f"{key}: {value}" for key, value in small.items()])
        (tmp_path / "tiny" / f"{stage}.yaml").write_text(text + "\n")
    return tmp_path / "train.sh"


@pytest.fixture
def path(engine, tmp_path):
    """What a shell is to look for programs in."""
    program = tmp_path / "bin" / "defectrt"
    program.parent.mkdir()
    names = {"python": sys.executable, "tests": TESTS, "graphs": engine.parent / "graphs"}
    program.write_text(PROGRAM.format(**names))
    program.chmod(0o755)
    return os.pathsep.join(
        [str(program.parent), str(Path(sys.executable).parent), os.environ["PATH"]]
    )


@pytest.mark.slow
def test_the_recipe_ends_with_an_engine_and_leaves_alone_what_is_done(recipe, path, tmp_path):
    out = tmp_path / "out"

    def run():
        command = ["bash", recipe, out, "tiny"]
        return subprocess.run(
            command, capture_output=True, text=True, env=os.environ | {"PATH": path}
        )

    first = run()
    assert first.returncode == 0, first.stderr
    with load_engine(out / "engine") as engine:
        defect_types = {p.name for p in engine.manifest.prompts if p.role == "defect"}
        assert defect_types == {"scratch", "crack", "dent", "hole", "stain", "particle"}
        assert sorted(engine.manifest.schedule.tables) == ["20", "4", "50", "8"]
    # what is finished is left alone
    made = [out / stage / "run.json" for stage in STAGES] + [out / "engine" / "engine.json"]
    written = [path.stat().st_mtime_ns for path in made]
    assert run().returncode == 0
    assert written == [path.stat().st_mtime_ns for path in made]
