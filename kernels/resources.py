"""Compile every kernel ahead of time, without a GPU, and keep account of what it needs.

    python -m defectrt.kernels.resources            write kernels/resources.json anew (minutes)
    python -m defectrt.kernels.resources --check    compile a part of it and compare
    … --check --only "row_step"                     compile what is called so, and compare
    python -m defectrt.kernels.resources --spills   compile all with whatever Triton is here, and
                                                    name what spills

Registers a thread, shared memory a block and bytes spilled, as Triton's own ptxas reports them for
each compute capability. What is compiled is what the launchers launch: they run on tensors
without memory, and their launches are recorded instead of executed.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import io
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from .case import Case
from .geglu.cases import GegluCase
from .masked_attention.cases import AttentionCase
from .row_step.cases import StepCase
from .self_attention.cases import SelfAttentionCase

__all__ = ["BUILDS", "CAPABILITIES", "TABLE", "compile_build", "fingerprint", "sample"]

TABLE = Path(__file__).with_name("resources.json")
CAPABILITIES = (80, 86, 89, 90, 120)

_HALF, _BRAIN, _FULL = torch.float16, torch.bfloat16, torch.float32

#: Operator -> the cases whose launches are compiled: SD 1.5's head widths, channels and layouts.
BUILDS: dict[str, tuple[Case, ...]] = {
    "masked_attention": (
        *(
            AttentionCase(d, 64, t, L=77, H=8, B=1)
            for t in (_HALF, _BRAIN, _FULL)
            for d in (40, 64, 80, 160)
        ),
        *(AttentionCase(d, 64, _HALF, L=77, H=8, B=1, map=True) for d in (40, 64, 80, 160)),
    ),
    "row_step": (StepCase(64, 64, B=1),),
    "self_attention": tuple(
        SelfAttentionCase(d, 64, t, H=8, B=1) for t in (_HALF, _BRAIN) for d in (40, 80)
    ),
    "geglu": tuple(GegluCase(64, 320, 1280, t, B=1) for t in (_HALF, _BRAIN, _FULL)),
}


@dataclass(frozen=True)
class Launch:
    """One recorded launch: a kernel, its arguments by name, and the launch options."""

    kernel: Any
    arguments: dict[str, Any]
    options: dict[str, int]


def launches(operator: str, case: Case) -> list[Launch]:
    """What the operator would launch for a case, in order."""
    module = importlib.import_module(f"defectrt.kernels.{operator}.kernel")
    inputs = [x.to("meta") if isinstance(x, Tensor) else x for x in case.inputs()]
    with _recorded(module) as found:
        case.launch(module, *inputs)
    return found


@contextmanager
def _recorded(module: ModuleType) -> Iterator[list[Launch]]:
    found: list[Launch] = []

    class Recorder:
        def __init__(self, kernel: Any) -> None:
            self.kernel = kernel

        def __getitem__(self, grid: Any) -> Any:
            def record(*args: Any, **kwargs: Any) -> None:
                names = self.kernel.arg_names
                options = {k: kwargs.pop(k) for k in list(kwargs) if k not in names}
                found.append(
                    Launch(self.kernel, dict(zip(names, args, strict=False)) | kwargs, options)
                )

            return record

    original = module.traceable
    module.traceable = Recorder  # type: ignore[attr-defined]
    try:
        yield found
    finally:
        module.traceable = original  # type: ignore[attr-defined]


_TYPES = {
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.float32: "*fp32",
    torch.int64: "*i64",
}


def specialise(launch: Launch) -> tuple[dict[str, str], dict[str, Any], dict[tuple[int], Any]]:
    """Signature, constants and attributes, as Triton derives them from arguments when it launches.

    Ones become constants; pointers, and integers divisible by 16, are marked so.
    """
    signature, constants, attributes = {}, {}, {}
    for index, parameter in enumerate(launch.kernel.params):
        name, value = parameter.name, launch.arguments[parameter.name]
        if parameter.is_constexpr or (isinstance(value, int) and value == 1):
            signature[name], constants[name] = "constexpr", value
            continue
        if isinstance(value, Tensor):
            signature[name] = _TYPES[value.dtype]
        else:
            signature[name] = "fp32" if isinstance(value, float) else "i32"
        if isinstance(value, Tensor) or (isinstance(value, int) and value % 16 == 0):
            attributes[(index,)] = [["tt.divisibility", 16]]
    return signature, constants, attributes


def compile_build(operator: str, case: Case, capability: int) -> dict[str, dict[str, int]]:
    """Compile all launches of a case: kernel name -> registers, shared and spilled bytes."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    found = {}
    for launch in launches(operator, case):
        source = ASTSource(launch.kernel, *specialise(launch))
        log = io.StringIO()
        with (
            tempfile.TemporaryDirectory() as cache,
            triton.knobs.cache.scope(),
            triton.knobs.nvidia.scope(),
            redirect_stdout(log),
        ):
            triton.knobs.cache.dir = cache  # a kernel from a cache has no log
            triton.knobs.nvidia.dump_ptxas_log = True
            target = GPUTarget("cuda", capability, 32)
            compiled = triton.compile(source, target=target, options=launch.options)
        text = log.getvalue()
        found[launch.kernel.__name__.removesuffix("_kernel")] = {
            "registers": int(_numbers(r"Used (\d+) registers", text)[0]),
            "shared": int(compiled.metadata.shared),
            "spilled": sum(_numbers(r"(\d+) bytes spill", text)),
        }
    return found


def _numbers(pattern: str, text: str) -> list[int]:
    found = [int(x) for x in re.findall(pattern, text)]
    if not found:
        raise RuntimeError(f"ptxas did not report {pattern!r}:\n{text}")
    return found


def fingerprint() -> str:
    """A hash of all that decides the table: the kernels' sources and what is compiled of them."""
    digest = hashlib.sha256()
    for path in sorted(
        [*Path(__file__).parent.glob("*/kernel.py"), Path(__file__).with_name("dot.py")]
    ):
        digest.update(path.read_bytes())
    digest.update(repr([[str(case) for case in cases] for cases in BUILDS.values()]).encode())
    return digest.hexdigest()


def everything() -> list[tuple[str, Case, int]]:
    """All builds: operator, case and compute capability."""
    return [(o, case, cc) for o, cases in BUILDS.items() for case in cases for cc in CAPABILITIES]


def sample() -> list[tuple[str, Case, int]]:
    """An eleventh of the builds, with every compute capability in turn."""
    return everything()[::11]


def compare(table: dict[str, Any], builds: list[tuple[str, Case, int]]) -> list[str]:
    """Compile ``builds`` and name every figure that differs from the table."""
    wrong = []
    for operator, case, capability in builds:
        for name, figures in compile_build(operator, case, capability).items():
            kept = table["kernels"].get(f"{name} {case}", {}).get(str(capability))
            if kept != figures:
                wrong.append(f"{name} {case} sm_{capability}: {kept} in the table, now {figures}")
    return wrong


def spilling(builds: list[tuple[str, Case, int]]) -> list[str]:
    """Compile ``builds`` and name those that spill registers."""
    return [
        f"{name} {case} sm_{capability}: {figures['spilled']} bytes spilled"
        for operator, case, capability in builds
        for name, figures in compile_build(operator, case, capability).items()
        if figures["spilled"]
    ]


def write(path: Path) -> None:
    """Compile everything and write the table."""
    import triton

    kernels: dict[str, dict[str, dict[str, int]]] = {}
    builds = everything()
    for done, (operator, case, capability) in enumerate(builds, 1):
        for name, figures in compile_build(operator, case, capability).items():
            kernels.setdefault(f"{name} {case}", {})[str(capability)] = figures
        if done % 10 == 0:
            print(f"{done} of {len(builds)} compiled", file=sys.stderr, flush=True)
    rows = ",\n".join(f"    {json.dumps(k)}: {json.dumps(v)}" for k, v in kernels.items())
    head = json.dumps({"triton": triton.__version__, "fingerprint": fingerprint()}, indent=2)
    path.write_text(head[:-2] + ',\n  "kernels": {\n' + rows + "\n  }\n}\n")


def main() -> int:
    """Write the table, or check a part of it."""
    parser = argparse.ArgumentParser(prog="python -m defectrt.kernels.resources")
    parser.add_argument("--check", action="store_true", help="compile a part of it and compare")
    parser.add_argument("--spills", action="store_true", help="compile all and name what spills")
    parser.add_argument("--only", default="", help="of these: what starts with this, all of it")
    parser.add_argument("--table", type=Path, default=TABLE, help="the table to write or check")
    arguments = parser.parse_args()
    # read by Triton when it is imported; kernels that are interpreted cannot be compiled
    os.environ["TRITON_INTERPRET"] = "0"
    os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")
    if not (arguments.check or arguments.spills):
        write(arguments.table)
        return 0
    builds = everything() if arguments.spills else sample()
    if arguments.only:
        builds = [b for b in everything() if f"{b[0]} {b[1]}".startswith(arguments.only)]
    if arguments.spills:
        wrong, right = spilling(builds), "spill nothing"
    else:
        wrong = compare(json.loads(arguments.table.read_text()), builds)
        right = "are as the table says"
    print("\n".join(wrong) or f"{len(builds)} builds {right}")
    return 1 if wrong or not builds else 0


if __name__ == "__main__":
    sys.exit(main())
