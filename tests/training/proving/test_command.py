"""A command in place of the detector: what it is given, and what is refused of its answer."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from defectrt.errors import Cancelled, DefectRTError, InputError, TrainingError, UsageError
from defectrt.training.data.samples import Sample
from defectrt.training.proving.command import parts_of, scored
from defectrt.training.proving.figures import TOP

DARK = """
import json, sys
from pathlib import Path
import numpy as np
from PIL import Image
data, out = map(Path, sys.argv[1:3])
assert len(list(data.glob("train/good/*.png"))) == 1
mask = np.asarray(Image.open(data / "ground_truth/hole/001_mask.png"))
assert sorted(np.unique(mask)) == [0, 255] and mask.shape == (16, 16)
names = {}
for path in sorted((data / "test").iterdir()):
    np.save(out.parent / f"{path.stem}.npy", 255.0 - np.asarray(Image.open(path).convert("L")))
    names[f"test/{path.name}"] = f"{path.stem}.npy"
out.write_text(json.dumps(names))
"""


def _sample(kind: str) -> Sample:
    mask = np.zeros((16, 16), bool)
    mask[2:5, 2:5] = kind != "good"
    image = np.repeat(np.where(mask, 40, 140).astype(np.uint8)[..., None], 3, axis=2)
    return Sample(Path(f"{kind}.png"), kind, image, mask)


HOLE, GOOD = _sample("hole"), _sample("good")


def _command(folder: Path, script: str) -> str:
    path = folder / "detector.py"
    path.write_text(script)
    return f"{sys.executable} {path} {{data}} {{out}} {{seed}}"


def test_a_command_scores_in_the_range_of_logits(tmp_path):
    command = _command(tmp_path, DARK)
    found = scored(command, [GOOD, HOLE, HOLE], [HOLE, GOOD], 0, bool)
    assert found[0][HOLE.mask].min() == pytest.approx(TOP)
    assert found[0][~HOLE.mask].max() == found[1].max() == pytest.approx(-TOP)


@pytest.mark.parametrize(
    ("script", "fault", "said"),
    [
        ("raise SystemExit('no memory')", TrainingError, "no memory"),
        ("", InputError, "wrote no answer"),
        (DARK + "out.write_text('{}')", InputError, "test/000.png has no scores"),
        (DARK.replace("255.0 -", "np.nan *"), InputError, "not all finite"),
        (DARK.replace('f"{path.stem}.npy"\n', '"../../x.npy"\n'), InputError, "lie outside"),
    ],
)
def test_what_is_not_an_answer_is_refused(tmp_path, script, fault, said):
    with pytest.raises(fault, match=said):
        scored(_command(tmp_path, script), [GOOD, HOLE, HOLE], [HOLE], 0, bool)


def test_a_command_is_stopped(tmp_path):
    with pytest.raises(Cancelled):
        scored(_command(tmp_path, "import time; time.sleep(60)"), [HOLE], [HOLE], 0, lambda: True)


@pytest.mark.parametrize("command", ["train", "train {data}", "train {out}"])
def test_places_are_needed(command):
    with pytest.raises(UsageError, match=r"needs \{data\} and \{out\}"):
        parts_of(command)


def test_a_command_that_is_not_there(tmp_path):
    with pytest.raises(DefectRTError, match="cannot be run"):
        scored(f"{tmp_path}/none {{data}} {{out}}", [HOLE], [HOLE], 0, bool)
