"""Sets of made defects, ours and others': what they were made on, and what they learned from."""

from __future__ import annotations

import json

import numpy as np
import pytest
from support.datasets import pairs
from support.outputs import save, write_folder

from defectrt.engines.loading import BUNDLED_ENGINE
from defectrt.engines.manifest import read_manifest
from defectrt.errors import InputError
from defectrt.files import sha256_of
from defectrt.synthesis.job import synthesize
from defectrt.training.proving.material import read_made, read_real

GREY = np.full((40, 50, 3), 120, np.uint8)
MASK = np.zeros((40, 50), bool)
MASK[10:20, 10:20] = True


def _output(out, kind, engine, count=2):
    samples = []
    for i in range(count):
        image = GREY.copy()
        image[MASK] = 60
        record = {
            "defect": kind,
            "source": f"{i}.png",
            "source_sha256": f"{kind}{i}",
            "refined_area": 50,
            "changed_area": 200,
        }
        samples.append((GREY, image, MASK, MASK, record))
    write_folder(out, ["hole", "crack"], samples)
    job = json.loads((out / "job.json").read_text())
    (out / "job.json").write_text(json.dumps(job | {"engine": engine}))


@pytest.fixture
def engine(tmp_path):
    """An engine that says it has learned from one picture: a manifest is all that is read."""
    folder, text = tmp_path / "engine", (BUNDLED_ENGINE / "engine.json").read_text()
    body = json.loads(text)
    body["provenance"]["dataset"] = [{"name": "hole/1.png", "sha256": "a" * 64}]
    folder.mkdir()
    (folder / "engine.json").write_text(json.dumps(body))
    return folder


def test_outputs_in_a_folder_are_one_set(tmp_path, engine):
    fingerprint = read_manifest(engine).fingerprint
    (tmp_path / "made").mkdir()
    for kind in ("hole", "crack"):
        _output(tmp_path / "made" / kind, kind, fingerprint)
    made = read_made(tmp_path / "made", [engine])
    assert made.name == "made"
    assert [p.sample.defect_type for p in made.pictures] == ["crack", "crack", "hole", "hole"]
    assert [p.source for p in made.pictures] == ["crack0", "crack1", "hole0", "hole1"]
    assert made.learned == {"a" * 64}
    assert made.labels == (0.25,) * 4
    assert (made.pictures[0].sample.mask == MASK).all()


def test_a_set_of_moved_defects_has_learned_from_those_it_moved(tmp_path):
    for i in range(3):
        save(tmp_path / "good" / f"{i}.png", GREY)
    image = GREY.copy()
    image[MASK] = 60
    save(tmp_path / "like" / "hole" / "a.png", image)
    save(tmp_path / "like" / "hole" / "a_mask.png", MASK.astype(np.uint8) * 255)
    synthesize(tmp_path / "good", tmp_path / "made", like=tmp_path / "like", quiet=True)
    made = read_made(tmp_path / "made")
    assert len(made.pictures) == 3
    assert made.learned == {sha256_of(tmp_path / "like" / "hole" / "a.png")}


def test_an_engine_that_is_not_named_is_unknown_and_the_bundled_one_is_known(tmp_path, engine):
    _output(tmp_path / "ours", "hole", read_manifest(BUNDLED_ENGINE).fingerprint)
    _output(tmp_path / "theirs", "hole", read_manifest(engine).fingerprint)
    assert read_made(tmp_path / "ours").learned == frozenset()
    assert read_made(tmp_path / "theirs").learned is None


def test_any_dataset_with_masks_is_a_set_of_unknown_source(tmp_path):
    pairs(tmp_path / "made")
    made = read_made(tmp_path / "made")
    assert made.pictures
    assert not made.sources_known
    assert made.learned is None


def test_a_job_without_a_picture_is_a_fault(tmp_path):
    _output(tmp_path / "made", "hole", "", count=0)
    with pytest.raises(InputError, match="holds no made picture"):
        read_made(tmp_path / "made")


def test_real_pictures_are_a_dataset_or_one_types_folder(tmp_path):
    save(tmp_path / "hole" / "1.jpg", GREY)
    save(tmp_path / "hole" / "1.png", MASK.astype(np.uint8) * 255)
    save(tmp_path / "good" / "2.png", GREY)
    found = read_real(tmp_path / "hole", [tmp_path / "good"])
    assert sorted(s.defect_type for s in found) == ["good", "hole"]
    with pytest.raises(InputError, match="no such folder"):
        read_real(tmp_path / "none")
