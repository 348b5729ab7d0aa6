"""Hostile engine directories, which Python and C++ must refuse alike."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

HOSTILE = Path(__file__).parents[1] / "hostile_engines"
CASES = json.loads((HOSTILE / "cases.json").read_text(encoding="utf-8"))["cases"]


def hostile(case, directory):
    """Make the engine directory of one case; see "about" in cases.json."""
    shutil.copytree(HOSTILE / "engine", directory)
    shutil.copytree(HOSTILE / "engine", directory.parent / "elsewhere")
    manifest = directory / "engine.json"
    text = manifest.read_text(encoding="utf-8")
    if "replace" in case:
        old, new = case["replace"]
        assert text.count(old) == 1
        text = text.replace(old, new)
    text = case.get("manifest", text) * case.get("times", 1)
    manifest.write_text(text, encoding="utf-8")
    for name in [*case.get("remove", []), *case.get("link", []), *case.get("pipe", [])]:
        (directory / name).unlink()
    for name, target in case.get("link", {}).items():
        (directory / name).symlink_to(target)
    for name in case.get("pipe", []):
        os.mkfifo(directory / name)
    for name in case.get("folder", []):
        (directory / name).unlink()
        (directory / name).mkdir()
    for name, content in case.get("write", {}).items():
        (directory / name).write_text(content)
