"""Compiled engines with a PyTorch that names no level of x86-64, takes no single row, no folder."""

from __future__ import annotations

import numpy as np
import pytest

from defectrt.engines import aoti_engine
from defectrt.engines.aoti_engine import AotiEngine, capabilities
from defectrt.engines.manifest import hash_file, read_manifest
from defectrt.errors import UsageError
from defectrt.export import aoti

#: Importing diffusers takes seconds.
pytestmark = pytest.mark.slow


@pytest.fixture(params=[True, False])
def names_levels(request, monkeypatch):
    monkeypatch.setattr(aoti, "_names_levels", lambda: request.param)
    return request.param


def test_it_is_told_no_level_and_its_target_is_this_very_processor(names_levels):
    assert ("cpp.march" in aoti._options("cpu")) is names_levels
    assert (aoti._needed("cpu") == capabilities("cpu")) is not names_levels


def test_its_engines_have_sizes_of_a_batch(names_levels):
    usual = aoti.Aoti.of("cpu", None, ())
    assert usual.buckets == (() if names_levels else aoti.BUCKETS)
    usual.check()
    if not names_levels:
        with pytest.raises(UsageError, match="compiles for batches of 2 rows or more"):
            aoti.Aoti("cpu").check()
        with pytest.raises(UsageError, match="give 2 to"):
            aoti.Aoti("cpu", buckets=(1,)).check()


def test_a_loader_that_wants_the_archive_gets_the_checked_copy(aoti_engine_here, tmp_path):
    path = aoti_engine_here / "decoder.pt2"
    (tmp_path / "private").mkdir()
    place = aoti_engine.unpack(path, hash_file(path), tmp_path / "private")
    assert place == tmp_path / "private" / "decoder.pt2"
    assert place.read_bytes() == path.read_bytes()
    with AotiEngine(aoti_engine_here, read_manifest(aoti_engine_here)) as engine:
        image = engine.manifest.image
        pixels = np.zeros((1, image.channels, image.height, image.width), np.float32)
        assert np.isfinite(engine.decode(engine.encode(pixels))).all()


@pytest.fixture
def aoti_engine_here(request, monkeypatch):
    directory = request.getfixturevalue("aoti_engine")
    monkeypatch.setattr(aoti_engine, "_FROM_FOLDER", False)
    return directory
