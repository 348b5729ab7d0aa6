"""Imports only ever point down: export -> training -> kernels -> runtime, and within the last."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

#: Folder -> (its import name, what it may import). ``runtime`` sees only what a line computer has.
LAYERS = {
    "runtime": ("defectrt", set()),
    "kernels": ("defectrt.kernels", {"torch", "triton"}),
    "training": (
        "defectrt.training",
        {
            "accelerate",
            "diffusers",
            "filelock",
            "peft",
            "psutil",
            "safetensors",
            "torch",
            "transformers",
            "yaml",
        },
    ),
    "export": (
        "defectrt.export",
        {"torch", "diffusers", "onnx", "onnxscript", "onnx_ir", "safetensors", "tensorrt"},
    ),
}
#: What one module may import besides, when it is needed: of a backend, or of an extra.
PACKAGES_OF_ONE = {
    "aoti_engine.py": {"torch"},
    "tensorrt_engine.py": {"tensorrt", "tensorrt_rtx_bindings", "tensorrt_rtx_libs", "cuda"},
    "tiff.py": {"imagecodecs", "tifffile"},
}
RUNTIME_PACKAGES = {
    "PIL",
    "cv2",
    "numpy",
    "onnxruntime",
    "packaging",
    "platformdirs",
    "pydantic",
    "rich",
    "typer",
}
#: Rooms of the runtime -> the other rooms they may use.
ROOMS = {
    "diffusion": set(),
    "images": {"diffusion"},
    "engines": {"diffusion"},
    "synthesis": {"diffusion", "images", "engines"},
    "datasets": {"diffusion", "images"},
}
#: Modules beside the rooms that rooms may use; all others are doors, and lie above.
BELOW = {"closing", "errors", "extras", "files", "progress"}
MAY_USE = {
    "runtime": {"runtime"},
    "kernels": {"kernels"},
    "training": {"training", "kernels", "runtime"},
    "export": {"export", "training", "kernels", "runtime"},
}


def layer_of(name: str) -> str:
    """The layer that an absolute import name of the project belongs to."""
    upper = [k for k, (prefix, _) in LAYERS.items() if k != "runtime" and in_package(name, prefix)]
    return upper[0] if upper else "runtime"


def in_package(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def imported(source: str, package: str) -> set[str]:
    """Absolute names of everything that a module of ``package`` imports, lazily or not."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            up = package.rsplit(".", node.level - 1)[0] if node.level else None
            base = ".".join(filter(None, [up, node.module]))
            names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return names


def faults(layer: str, source: str, path: Path = Path("module.py")) -> list[str]:
    """Imports of a module that it may not have; path is where it lies in its layer."""
    folder, name_of_module = ".".join(path.parent.parts), path.name
    package, extra = LAYERS[layer]
    allowed = RUNTIME_PACKAGES | extra if layer != "kernels" else extra
    if layer == "runtime":
        allowed = allowed | PACKAGES_OF_ONE.get(name_of_module, set())
    found = []
    for name in sorted(imported(source, ".".join(filter(None, [package, folder])))):
        top = name.partition(".")[0]
        if top == "defectrt":
            if layer_of(name) not in MAY_USE[layer]:
                found.append(name)
        elif top not in sys.stdlib_module_names and top not in allowed:
            found.append(name)
    return found


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_point_down(layer):
    modules = sorted((ROOT / layer).rglob("*.py"))
    assert modules
    bad = {}
    for m in modules:
        inside = m.relative_to(ROOT / layer)
        bad[str(inside)] = faults(layer, m.read_text(), inside)
    assert not {name: found for name, found in bad.items() if found}


@pytest.mark.parametrize(
    ("layer", "line"),
    [
        ("runtime", "import torch"),
        ("runtime", "from .training import train"),
        ("runtime", "from defectrt.export import onnx"),
        ("runtime", "def f():\n    import diffusers"),
        ("kernels", "from defectrt.errors import InputError"),
        ("kernels", "from defectrt.training.models.stable_diffusion import MaskedUNet"),
        ("training", "from defectrt.export import onnx"),
        ("training", "import onnx"),
    ],
)
def test_an_import_that_points_up_is_found(layer, line):
    assert faults(layer, line)


def test_only_the_module_of_a_backend_imports_its_packages():
    assert not faults("runtime", "import torch", Path("aoti_engine.py"))
    assert faults("runtime", "import tensorrt", Path("aoti_engine.py"))
    assert faults("runtime", "import torch", Path("engine.py"))


@pytest.mark.parametrize(
    ("layer", "line"),
    [
        ("runtime", "from .rows import Rows\nimport json"),
        ("training", "from defectrt.kernels.masked_attention import resize_mask"),
        ("export", "from defectrt.training.models.stable_diffusion import MaskedUNet"),
    ],
)
def test_an_import_that_points_down_is_allowed(layer, line):
    assert not faults(layer, line)


def trespasses(room: str, source: str) -> list[str]:
    """Imports of a module in a room of the runtime that point up or sideways."""
    allowed = ROOMS[room] | BELOW | {room}
    names = sorted(imported(source, f"defectrt.{room}"))
    own = [name.split(".") for name in names if in_package(name, "defectrt")]
    return [".".join(parts) for parts in own if len(parts) > 1 and parts[1] not in allowed]


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_of_the_runtime_look_down(room):
    modules = sorted((ROOT / "runtime" / room).glob("*.py"))
    assert len(modules) > 3
    bad = {m.name: trespasses(room, m.read_text()) for m in modules}
    assert not {name: found for name, found in bad.items() if found}


def test_every_folder_of_the_runtime_is_a_room():
    assert {m.parent.name for m in (ROOT / "runtime").glob("*/*.py")} == set(ROOMS)


@pytest.mark.parametrize(
    ("room", "line"),
    [
        ("diffusion", "from ..engines.engine import Engine"),
        ("images", "from defectrt.engines import manifest"),
        ("engines", "def f():\n    from .. import job"),
        ("synthesis", "from ..datasets.journal import Entry"),
        ("datasets", "from ..synthesis.pipeline import Job"),
        ("datasets", "from ..cli import main"),
    ],
)
def test_an_import_out_of_a_room_and_up_is_found(room, line):
    assert trespasses(room, line)
