"""Other people's packages, which lie apart from the program's own."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from defectrt.errors import UsageError

__all__ = ["reached"]

_ROOT = Path(__file__).parents[2]
#: Where `check-needs` and `benchmarks/arena/needs.txt` put them.
_PLACES = (_ROOT / ".cache" / "readers", _ROOT / ".cache" / "arena")
_NEEDS = "pip install --no-deps --target .cache/arena -r benchmarks/arena/needs.txt"
_HOW = {"anomalib": "./check-needs", "timm": _NEEDS, "defect_synthesis": _NEEDS}


def reached(*packages: str) -> None:
    """Make ``packages`` importable; raises `UsageError` saying how to get the one that is not."""
    sys.path += [str(place) for place in _PLACES if str(place) not in sys.path]
    for package in packages:
        if find_spec(package) is None:
            raise UsageError(f"{package}: not installed; run {_HOW[package]}")
