"""Compiled engines with a PyTorch that names no level of x86-64 and takes no single row."""

from __future__ import annotations

import pytest

from defectrt.engines.aoti_engine import capabilities
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
