"""The C++ library is portable by construction: one file of it knows an operating system."""

from __future__ import annotations

import re
from pathlib import Path

SOURCES = Path(__file__).parents[2] / "cpp" / "src"
KNOWS = re.compile(
    r"_WIN32|__linux__|__APPLE__"
    r"|#include <(?:sys/.*|unistd|dlfcn|dirent|sched|link|windows)(?:\.h)?>"
)


def test_one_file_knows_an_operating_system():
    knowing = {path.name for path in SOURCES.iterdir() if KNOWS.search(path.read_text("utf-8"))}
    # compiled programs of AOTInductor are told apart by Linux's names of processors
    assert knowing == {"platform.cpp", "aoti_engine.cpp"}
