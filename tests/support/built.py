"""What takes long to build, kept from run to run and shared by workers that run at once."""

from __future__ import annotations

import hashlib
import platform
import shutil
from collections.abc import Callable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from filelock import FileLock

ROOT = Path(__file__).parents[2]
HOME = ROOT / ".cache" / "tests"
#: What runs and engines are made by.
_SOURCES = (
    "runtime/config",
    "runtime/diffusion",
    "runtime/engines",
    "runtime/images",
    "kernels",
    "training",
    "export",
)
_TESTS = ("tests/conftest.py", "tests/support/built.py", "tests/support/graphs.py")
#: What else decides the bytes.
_PACKAGES = ("torch", "diffusers", "transformers", "onnx", "onnxscript", "tensorrt-rtx-cu13-libs")


def built(name: str, make: Callable[[Path], object], copy: Path) -> Path:
    """A folder as ``make`` fills it, at ``copy``: a test that changes it changes its own.

    It is made once from the same sources on the same kind of machine; older ones are removed.
    """
    home = HOME / name
    home.mkdir(parents=True, exist_ok=True)
    whole = home / key()
    with FileLock(home / "lock"):
        if not whole.is_dir():
            for other in [path for path in home.iterdir() if path.is_dir()]:
                shutil.rmtree(other)
            partial = home / "partial"
            partial.mkdir()
            make(partial)
            partial.rename(whole)
        shutil.copytree(whole, copy)
    return copy


@cache
def key() -> str:
    """Of the sources that runs and engines are made by, the packages below and the processor."""
    digest = hashlib.sha256()
    sources = [path for place in _SOURCES for path in (ROOT / place).rglob("*.py")]
    for path in sorted([*sources, *(ROOT / name for name in _TESTS)]):
        digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    for name in _PACKAGES:
        try:
            digest.update(f"{name} {version(name)}\n".encode())
        except PackageNotFoundError:
            digest.update(f"{name} missing\n".encode())
    digest.update(f"{platform.platform()} {platform.python_version()}".encode())
    cpu = Path("/proc/cpuinfo")
    flags = (
        [s for s in cpu.read_text().splitlines() if s.startswith("flags")] if cpu.exists() else []
    )
    digest.update("".join(flags[:1]).encode())
    return digest.hexdigest()[:16]
