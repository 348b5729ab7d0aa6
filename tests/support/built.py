"""What takes long to build, kept from run to run and shared by workers that run at once."""

from __future__ import annotations

import ast
import hashlib
import inspect
import platform
import shutil
import textwrap
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from filelock import FileLock

ROOT = Path(__file__).parents[2]
HOME = ROOT / ".cache" / "tests"
#: Where modules lie, by the beginnings of their names.
_FOLDERS = {
    "support": "tests/support",
    "defectrt.kernels": "kernels",
    "defectrt.training": "training",
    "defectrt.export": "export",
    "defectrt": "runtime",
}
#: It only names what lies in the rooms.
_FRONT_DOOR = "defectrt"
#: What else decides the bytes.
_PACKAGES = ("torch", "diffusers", "transformers", "onnx", "onnxscript", "tensorrt-rtx-cu13-libs")


def built(
    name: str, make: Callable[[Path], object], copy: Path, *, of: Iterable[Path] = ()
) -> Path:
    """A folder as ``make`` fills it, at ``copy``: a test that changes it changes its own.

    It is made once by the same sources from the same files ``of`` which it is made, on the same
    kind of machine; older ones are removed. ``make`` imports what it uses.
    """
    home = HOME / name
    home.mkdir(parents=True, exist_ok=True)
    whole = home / key(make, of)
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


def built_from(run: Path) -> tuple[Path, Path]:
    """What a build reads of a run; what its training wrote beside is not the same twice."""
    return run / "model", run / "run.json"


def key(make: Callable[[Path], object], of: Iterable[Path] = ()) -> str:
    """Of a function, all sources of the project that it imports, these files, and the machine."""
    text = textwrap.dedent(inspect.getsource(make))
    digest = hashlib.sha256((text + _machine()).encode())
    for module in sorted(_needed(_imports(text, ""))):
        digest.update(f"{module}\0".encode() + _path(module).read_bytes())
    for folder in of:
        for path in sorted(p for p in (folder, *folder.rglob("*")) if p.is_file()):
            digest.update(f"{path.relative_to(folder.parent)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _needed(names: Iterable[str]) -> set[str]:
    """The modules of the project that are loaded with these, lazily or not."""
    found: set[str] = set()
    new = set(names)
    while new:
        parts = new.pop().split(".")
        for module in (".".join(parts[: i + 1]) for i in range(len(parts))):
            path = _path(module)
            if path and module not in found:
                found.add(module)
                package = module if path.name == "__init__.py" else module.rpartition(".")[0]
                if module != _FRONT_DOOR:
                    new.update(_imports(path.read_text(encoding="utf-8"), package))
    return found


def _path(module: str) -> Path | None:
    """The file of a module of the project; none if it is another's, or no module."""
    for prefix, folder in _FOLDERS.items():
        if module == prefix or module.startswith(prefix + "."):
            path = ROOT.joinpath(folder, *module.removeprefix(prefix).split(".")[1:])
            return next(
                (p for p in (path / "__init__.py", Path(f"{path}.py")) if p.is_file()), None
            )
    return None


@cache
def _imports(text: str, package: str) -> frozenset[str]:
    """Absolute names of everything that a text imports."""
    return frozenset(_imported(ast.parse(text), package))


def _imported(tree: ast.AST, package: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: 1 - node.level or None] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


@cache
def _machine() -> str:
    """The packages, the system and the processor."""
    found = [f"{platform.platform()} {platform.python_version()}"]
    for name in _PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} missing")
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    return "\n".join([*found, *[line for line in lines if line.startswith("flags")][:1]])
