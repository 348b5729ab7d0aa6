"""What can be a name: the table that the C++ runtime is held to as well (test_parts.cpp)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from defectrt.config.names import is_name

CASES = json.loads((Path(__file__).parents[2] / "names.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("name", "good"), CASES, ids=ascii)
def test_names(name, good):
    assert is_name(name) is good


def test_the_table_has_both():
    assert {good for _, good in CASES} == {True, False}


def test_half_a_surrogate_pair_is_no_name():
    """JSON that has one is refused before; a name from the command line may."""
    assert not is_name("a\udc80")
    assert not is_name("\ud800")
