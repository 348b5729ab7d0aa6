"""What the pages link to is there, and nothing was left to be filled in."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    text = page.read_text()
    targets = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text)
    local = [t for t in targets if not re.match(r"[a-z]+:", t)]
    assert [t for t in local if not (page.parent / t).exists()] == []


#: What a page holds while it is being written.
PLACEHOLDER = re.compile(r"\b(?:TODO|FIXME|TBD|XXX|JUDGEMENT|BENCH|\w+_CAPTION|FT_\w+)\b")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_nothing_is_left_to_be_filled_in(page):
    assert PLACEHOLDER.findall(page.read_text()) == []


@pytest.mark.parametrize("text", ["*SHEET_CAPTION*", "| FT_STEPS |", "in FT_MIN min", "TODO: more"])
def test_a_placeholder_is_seen(text):
    assert PLACEHOLDER.search(text)
