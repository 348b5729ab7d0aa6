"""libdefectrt makes what Python's jobs and series make, from what these wrote down."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from support import clibrary

from defectrt import synthesize
from defectrt.diffusion.seeds import sample_seed
from defectrt.engines.loading import BUNDLED_ENGINE
from defectrt.images.reading import read_image
from defectrt.masks.reading import mask_values
from defectrt.output.instances import with_level
from defectrt.synthesis.series import series

pytestmark = pytest.mark.slow
NAME = "leather.png"
STEPS = 8
LOOSE = {"min_grain": 0.0, "min_change": 1e-3, "refine_min_area": 1}
LOOSE |= {"min_coverage": 0.0, "max_leak": 1e6}
INPUT, USAGE = 3, 2


@pytest.fixture(scope="module")
def library():
    try:
        return clibrary.Library(clibrary.build())
    except clibrary.UnavailableError as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def engine(library):
    """The bundled one."""
    opened = library.open(BUNDLED_ENGINE, threads=1)
    yield opened
    library.c.defectrt_engine_destroy(opened)


@pytest.fixture
def session(library, engine):
    """Of one type; requests may ask for others."""
    made = library.session(engine, defect=b"crack", steps=STEPS)
    yield made
    library.c.defectrt_session_destroy(made)


@pytest.fixture
def loose(library, engine):
    """The same, where whatever is painted is a defect."""
    made = library.session(engine, defect=b"crack", steps=STEPS, **LOOSE)
    yield made
    library.c.defectrt_session_destroy(made)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A good image, alone in its folder."""
    folder = tmp_path_factory.mktemp("images")
    shutil.copy(clibrary.ROOT / "examples" / "images" / NAME, folder)
    return folder / NAME


@pytest.fixture(scope="module")
def made(source, tmp_path_factory):
    """A dataset of Python's with defects of two types in each image, and its manifest."""
    out = tmp_path_factory.mktemp("out") / "dataset"
    how = {"defect": "crack,hole", "mixed": True, "steps": STEPS, "seed": 3, **LOOSE}
    synthesize(source.parent, out, count=2, quiet=True, **how)
    lines = (out / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    return out, [json.loads(line) for line in lines]


def nearly(image, expected):
    return np.abs(image.astype(int) - expected.astype(int)).max() <= 1


def test_a_sample_is_made_again_from_its_record(library, loose, made, source):
    out, lines = made
    image = read_image(source)
    assert lines
    for line in lines:
        types = [mask["defect"] for mask in line["masks"]]
        assert sorted(types) == ["crack", "hole"]
        levels = mask_values(out / line["mask"]).values
        masks = [with_level(levels, i) for i in range(len(types))]
        seed = library.sample_seed(3, line["source"], line["sample"])
        assert seed == line["seed"]
        strengths = [mask["strength"] for mask in line["masks"]]
        remade, label, band, record = library.submit(
            loose, image, masks, seed, defects=types, strengths=strengths
        )
        assert nearly(remade, read_image(out / line["image"]))
        assert np.array_equal(remade[band == 0], image[band == 0])
        assert abs(int((label > 0).sum()) - line["refined_area"]) <= 2
        told = [{key: mask[key] for key in ("defect", "strength")} for mask in line["masks"]]
        assert record.pop("masks") == told
        assert_alike(record, {key: line[key] for key in record})
        assert line.keys() - record.keys() == {
            *("image", "label", "mask", "good", "source", "source_sha256", "sample"),
            *("category", "provider", "masks"),
        }


def assert_alike(record, expected):
    """The same members, numbers but for the last bits."""
    assert list(record) == list(expected)
    for key, value in expected.items():
        if isinstance(value, dict):
            assert_alike(record[key], value)
        elif isinstance(value, list):
            for one, other in zip(record[key], value, strict=True):
                assert_alike(one, other)
        elif isinstance(value, float):
            assert record[key] == pytest.approx(value, abs=2e-3), key
        elif key in ("refined_area", "changed_area", "area"):
            assert abs(record[key] - value) <= 2
        else:
            assert record[key] == value, key


def test_a_series(library, session, source, tmp_path):
    image = read_image(source)
    mask = np.zeros(image.shape[:2], bool)
    mask[40:46, 30:60] = True
    Image.fromarray(mask).save(tmp_path / "mask.png")
    how = {"mask": tmp_path / "mask.png", "defect": "crack", "steps": STEPS, "seed": 5}
    grades = series(image=source, out=tmp_path / "out", strengths="0.2,0.5", **how)
    seed = sample_seed(5, NAME, 0)
    assert len([grade for grade in grades if grade.image]) == 2
    for grade in grades:
        remade = library.synthesize(session, image, [mask], seed, strength=grade.wanted)
        assert nearly(remade[0], read_image(tmp_path / "out" / grade.image))
        assert remade[4].strength == pytest.approx(grade.strength, abs=1e-3)


def test_within_a_region(library, loose, source):
    image = read_image(source)
    mask = np.zeros(image.shape[:2], bool)
    mask[40:50, 30:40] = True
    legal = np.zeros_like(mask)
    legal[40:50, 30:40] = True
    how = {"defects": ["hole"], "seed": 1}
    free = library.synthesize(loose, image, [mask], **how)
    inside = library.synthesize(loose, image, [mask], within=legal, **how)
    assert np.array_equal(free[0], inside[0])
    legal[49, 33:36] = False
    with pytest.raises(clibrary.StatusError, match=r"^3 px of the mask lie where no") as refused:
        library.synthesize(loose, image, [mask], within=legal, **how)
    assert refused.value.status == INPUT


def test_a_type_that_the_engine_does_not_make(library, session, source):
    image = read_image(source)
    mask = np.ones(image.shape[:2], bool)
    with pytest.raises(clibrary.StatusError, match="no defect is named 'rust'") as refused:
        library.synthesize(session, image, [mask, mask], 1, defects=[None, "rust"])
    assert refused.value.status == USAGE
