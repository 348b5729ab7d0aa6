"""What every number depends on: commit, card, driver, versions."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

#: Packages whose versions are recorded.
PACKAGES = ("torch", "triton", "diffusers", "transformers", "onnxruntime", "numpy", "defectrt")


def commit() -> str:
    """The commit that is measured, with + where files differ from it.

    A checkout that was copied to another machine may have no history there: the bundle's word,
    in ``DEFECTRT_COMMIT``, goes first.
    """
    command = ["git", "describe", "--always", "--dirty=+"]
    root = Path(__file__).parent
    return os.environ.get("DEFECTRT_COMMIT") or answer(command, root)


def answer(command: list[str], folder: Path | None = None) -> str:
    """What a program prints, without the last line's end; nothing if it fails or is not there."""
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def version(package: str) -> str:
    """The installed version, or nothing."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


@cache
def conditions() -> dict[str, Any]:
    """Commit, card, driver and the versions that decide times, for every row."""
    card, _, driver = answer(
        ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader", "--id=0"]
    ).partition(", ")
    return {
        "commit": commit(),
        "device": card or platform.processor() or platform.machine(),
        "driver": driver,
        "torch": version("torch"),
        "triton": version("triton"),
    }
