"""What a detector says: in folders, in lists, by a command; and what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from defectrt.errors import InputError, TrainingError
from defectrt.training.data.samples import Sample
from defectrt.training.thresholds.scores import read_scores, scores_by


def _sample(path):
    image = np.full((6, 8, 3), 100, np.uint8)
    return Sample(Path(path), "hole", image, np.zeros((6, 8), bool))


A, B = _sample("/data/made/test/hole/000.png"), _sample("/data/real/hole/000.jpg")
MAP = np.arange(48.0).reshape(6, 8)


def _saved(folder, *names):
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(folder / name, MAP + i)
    return folder


def test_a_folder_of_maps_by_the_ends_of_their_paths(tmp_path):
    found = read_scores(_saved(tmp_path, "made/test/hole/000.npy", "real/hole/000.npy"), [A, B])
    assert np.array_equal(found[0], MAP)
    assert np.array_equal(found[1], MAP + 1)


def test_the_longest_name_counts(tmp_path):
    found = read_scores(_saved(tmp_path, "hole/000.npy", "made/test/hole/000.npy"), [A, B])
    assert np.array_equal(found[0], MAP + 1)
    assert np.array_equal(found[1], MAP)


def test_tiffs_and_maps_of_another_size(tmp_path):
    cv2.imwrite(str(tmp_path / "000.tiff"), np.full((3, 4), 0.25, np.float32))
    assert np.array_equal(read_scores(tmp_path, [A])[0], np.full((6, 8), 0.25))


@pytest.mark.parametrize("suffix", ["json", "csv"])
def test_lists_of_single_scores(tmp_path, suffix):
    scores = {"/data/made/test/hole/000.png": 0.5, "real/hole/000.jpg": 2}
    path = tmp_path / f"scores.{suffix}"
    rows = "".join(f"{k},{v}\n" for k, v in scores.items())
    path.write_text(json.dumps(scores) if suffix == "json" else f"path,score\n{rows}")
    assert [float(f) for f in read_scores(path, [A, B])] == [0.5, 2]


def test_a_list_may_name_maps_beside_it(tmp_path):
    _saved(tmp_path, "maps/a.npy")
    (tmp_path / "list.json").write_text(json.dumps({"hole/000.png": "maps/a.npy"}))
    assert np.array_equal(read_scores(tmp_path / "list.json", [A])[0], MAP)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"real/hole/000.png": 1}', r"no scores of /data/made/test/hole/000\.png"),
        ('{"hole/000.png": 1}', "names /data/made/test/hole/000.png and /data/real/hole"),
        ('{"made/test/hole/000": 1, "hole/000": "a.npy"}', "maps for some pictures and single"),
        ('{"made/test/hole/000": NaN, "hole/000": 1}', "not all finite"),
        ('{"made/test/hole/000": "high"}', "not a list of scores"),
        ("{}", "holds no scores"),
        ("[1]", "not a list of scores"),
        ('{"hole/000": "none.npy", "made/test/hole/000": 1}', "cannot be read"),
    ],
)
def test_lists_that_cannot_be_used(tmp_path, text, said):
    _saved(tmp_path, "a.npy")
    (tmp_path / "list.json").write_text(text)
    with pytest.raises(InputError, match=said):
        read_scores(tmp_path / "list.json", [A, B])


def test_folders_that_cannot_be_used(tmp_path):
    with pytest.raises(InputError, match="holds no maps"):
        read_scores(tmp_path, [A])
    np.save(tmp_path / "000.npy", np.zeros((2, 3, 4)))
    with pytest.raises(InputError, match="3 dimensions"):
        read_scores(tmp_path, [A])
    (tmp_path / "000.npy").write_bytes(b"none")
    with pytest.raises(InputError, match="not a map of numbers"):
        read_scores(tmp_path, [A])
    (tmp_path / "list.csv").write_text("name,value\na,1\n")
    with pytest.raises(InputError, match="columns path and score"):
        read_scores(tmp_path / "list.csv", [A])


COMMAND = """
import json, sys
from pathlib import Path
import numpy as np
data, out = map(Path, sys.argv[1:3])
Path("runs.txt").open("a").write("run\\n")
names = {}
for path in sorted((data / "test").iterdir()):
    np.save(out.parent / f"{path.stem}.npy", np.full((6, 8), 0.1))
    names[f"test/{path.name}"] = f"{path.stem}.npy"
out.write_text(json.dumps(names))
"""


@pytest.fixture
def scored(tmp_path, monkeypatch):
    """A picture, and a command of the working directory that scores it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "score.py").write_text(COMMAND)
    (tmp_path / "a.png").write_bytes(b"a")
    sample = Sample(tmp_path / "a.png", "hole", A.image, A.mask)
    command = f"{sys.executable} score.py {{data}} {{out}}"
    return sample, command


@pytest.mark.slow
def test_a_command_is_not_run_again(tmp_path, scored):
    sample, command = scored
    first, second = (scores_by(command, [sample], tmp_path / "out", 0) for _ in range(2))
    assert np.array_equal(first[0], second[0])
    assert first[0] == pytest.approx(np.full((6, 8), 0.1))
    assert (tmp_path / "runs.txt").read_text() == "run\n"
    scores_by(f"{command} ", [sample], tmp_path / "out", 0)
    (tmp_path / "a.png").write_bytes(b"b")
    other = Sample(tmp_path / "a.png", "hole", A.image, A.mask)
    scores_by(command, [other], tmp_path / "out", 0)
    assert (tmp_path / "runs.txt").read_text() == 3 * "run\n"
    with pytest.raises(TrainingError):
        scores_by(f"{sys.executable} none.py {{data}} {{out}}", [sample], tmp_path / "out", 0)


@pytest.mark.slow
def test_a_command_whose_file_was_changed_is_another(tmp_path, scored):
    sample, command = scored
    first = scores_by(command, [sample], tmp_path / "out", 0)
    (tmp_path / "score.py").write_text(COMMAND.replace("0.1", "0.2"))
    second = scores_by(command, [sample], tmp_path / "out", 0)
    assert float(first[0].max()) < float(second[0].max())
