"""Members of a program's archive that no program holds, and some that one does."""

from __future__ import annotations

import hashlib

from defectrt.engines.manifest import FileEntry

CODE = "e/data/aotinductor/model"


def entry(path):
    text = path.read_bytes()
    return FileEntry(sha256=hashlib.sha256(text).hexdigest(), size=len(text))


BAD_MEMBERS = [
    "../a.so",
    "/tmp/a.so",
    "e/../../a.so",
    f"{CODE}/../a.so",
    f"{CODE}/..",
    f"{CODE}/sub/a.so",
    f"{CODE}/a\\b.so",
    f"{CODE}/C:a.so",
    f"{CODE}/a\n.so",
    "e/data/aotinductor/other/a.so",
    "e/data/weights/w.pkl",
    "e/models/model.json",
    "f/archive_format",
    "e/data.pkl",
]
GOOD = (f"{CODE}/a.so", f"{CODE}/a.cpp", "e/archive_format", "e/.data/version")
