"""The backend aoti: the graphs compiled by AOTInductor, ahead of time, for one kind of machine."""

from __future__ import annotations

import os
import platform
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Literal, Self
from unittest.mock import patch

import torch
from packaging.version import Version
from torch import nn

from defectrt.engines.aoti_engine import MOST_ROWS, AotiEngine
from defectrt.engines.manifest import TOLERANCES, Manifest, Target
from defectrt.errors import EngineError, MissingExtraError, UsageError
from defectrt.training.models.stable_diffusion import StableDiffusion

from .backend import Say
from .fused import fuse_geglu
from .narrow import TYPES, Narrowed, round_weights
from .rowstep import RowStep
from .source import Part

__all__ = ["BUCKETS", "Aoti", "compile_program", "export_program", "for_gpu"]

Device = Literal["cpu", "cuda"]
Precision = Literal["float32", "float16", "bfloat16"]

#: Sizes of a batch that a GPU's engine has a CUDA graph for.
BUCKETS = (2, 4, 8, 16, 32)


@dataclass
class Aoti:
    """See `defectrt.export.backend.Backend`.

    device     ``cpu`` or ``cuda``: this machine's; the latter has never run on hardware
    precision  of the U-Net; float32 on a CPU. Beside a narrow one the autoencoder is bfloat16,
               which has the range of float32; its float16 overflows. The boundary stays float32
    buckets    sizes of a batch that are run, others are padded or split; none for any size
    """

    device: Device = "cpu"
    precision: Precision = "float32"
    buckets: tuple[int, ...] = ()
    name: ClassVar[Literal["aoti"]] = "aoti"
    stages: ClassVar[int] = 6
    _cache: TemporaryDirectory[str] | None = field(default=None, repr=False)

    @classmethod
    def of(cls, device: Device, precision: Precision | None, buckets: tuple[int, ...]) -> Self:
        """With what suits the device where nothing was chosen."""
        if _fewest(device) > 1:
            buckets = buckets or BUCKETS
        return cls(device, precision or ("float32" if device == "cpu" else "float16"), buckets)

    @property
    def tolerance(self) -> float:
        """By precision."""
        return TOLERANCES[self.precision]

    @property
    def autoencoder_precision(self) -> Precision:
        """Its range is wide, so it is narrowed to bfloat16 only."""
        return "float32" if self.precision == "float32" else "bfloat16"

    @property
    def autoencoder_tolerance(self) -> float:
        """By its precision."""
        return TOLERANCES[self.autoencoder_precision]

    def check(self) -> None:
        """Raise `UsageError` for what cannot be, `EngineError` without a GPU for ``cuda``.

        `MissingExtraError` without a C++ compiler.
        """
        fewest = _fewest(self.device)
        if wrong := [n for n in self.buckets if not fewest <= n <= MOST_ROWS]:
            raise UsageError(f"--batch-size {wrong[0]}: give {fewest} to {MOST_ROWS}")
        if self.device == "cpu" and self.precision != "float32":
            raise UsageError(f"on a CPU the precision is float32, not {self.precision}")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise EngineError(
                "AOTInductor compiles for the GPU at hand, and PyTorch sees none here; build the "
                "engine on the machine that shall run it, or choose --device cpu"
            )
        if self.device == "cuda" and not self.buckets:
            raise UsageError("on a GPU every batch size is a CUDA graph; give at least one")
        if fewest > 1 and not self.buckets:
            raise UsageError(
                f"PyTorch {torch.__version__} compiles for batches of {fewest} rows or "
                "more; give at least one size"
            )
        _check_compiler()

    @torch.no_grad()
    def prepare(self, model: StableDiffusion) -> None:
        """Round the weights that become narrow."""
        for parameter in model.unet.parameters():
            parameter.copy_(parameter.to(TYPES[self.precision]))
        round_weights(model.vae, TYPES[self.autoencoder_precision])

    def export(self, part: Part, directory: Path, say: Say) -> None:
        """Write ``<name>.pt2``: the denoiser for any batch, the others for one picture."""
        say(f"exporting {part.name}")
        module, one = part.module, part.name != "denoiser"
        if self.device == "cuda":
            precision = self.autoencoder_precision if one else self.precision
            module = for_gpu(module, TYPES[precision]).cuda()
        example = part.example(1 if one else 3)
        inputs = {name: x.to(self.device) for name, x in example.items()}
        program = export_program(module, inputs, fewest=_fewest(self.device), fixed=one)
        say(f"compiling {part.name}")
        with self._own_cache():
            try:
                compile_program(program, directory / f"{part.name}.pt2", self.device)
            except RuntimeError as error:
                raise EngineError(f"{part.name}: {_short(error)}; nothing was written") from error

    def target(self) -> Target:
        """This machine, and this version of PyTorch, which alone can run it."""
        return Target(
            device=self.device,
            capabilities=_needed(self.device),
            rows=sorted(set(self.buckets)),
            runtime={"torch": Version(torch.__version__).public},
        )

    def tools(self) -> dict[str, str]:
        """The compiler, and Triton for a GPU."""
        from torch._inductor.cpp_builder import get_cpp_compiler

        asked = [get_cpp_compiler(), "--version"]
        version = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
        version = version.partition("\n")[0]
        if self.device == "cpu":
            return {"compiler": version}
        return {"compiler": version, "triton": metadata.version("triton")}

    def open(self, directory: Path, manifest: Manifest) -> AotiEngine:
        """What was compiled a moment ago needs no trust."""
        if self._cache:
            self._cache.cleanup()
            self._cache = None
        return AotiEngine(directory, manifest)

    @contextmanager
    def _own_cache(self) -> Iterator[None]:
        """Generated code goes where nothing stays; the three graphs share compiled headers."""
        self._cache = self._cache or TemporaryDirectory(prefix="defectrt-")
        with patch.dict(os.environ, TORCHINDUCTOR_CACHE_DIR=self._cache.name):
            yield


def for_gpu(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Change it in place: channels last, weights in ``dtype``, GEGLU as one operator."""
    if isinstance(module, RowStep):
        module.unet.to(dtype)
        fuse_geglu(module.unet)
    elif dtype != torch.float32:
        module = Narrowed(module, dtype)
    return module.to(memory_format=torch.channels_last)


def export_program(
    module: nn.Module, inputs: dict[str, Any], *, fewest: int = 1, fixed: bool = False
) -> torch.export.ExportedProgram:
    """The module as a graph for any batch from ``fewest`` to `MOST_ROWS`, or the inputs' only."""
    from torch.fx.experimental import _config

    batch = torch.export.Dim("batch", min=fewest, max=MOST_ROWS)
    shapes = None if fixed else {name: {0: batch} for name in inputs}
    # else a batch of one counts as another program
    with torch.no_grad(), _config.patch(backed_size_oblivious=True), _quiet():
        return torch.export.export(module.eval(), (), kwargs=inputs, dynamic_shapes=shapes)


def compile_program(program: torch.export.ExportedProgram, path: Path, device: Device) -> None:
    """Write it as ``path``, a package of AOTInductor."""
    with _quiet():
        torch._inductor.aoti_compile_and_package(
            program, package_path=str(path), inductor_configs=_options(device)
        )


def _options(device: str) -> dict[str, Any]:
    """Inductor's, beside its defaults. The number of threads is the caller's, not the builder's."""
    options: dict[str, Any] = {"cpp.dynamic_threads": True}
    if device == "cpu" and platform.machine() == "x86_64" and _names_levels():
        # what a target can name, instead of all that this very processor can do
        options["cpp.march"] = "x86-64-v4" if "avx512" in _needed(device) else "x86-64-v3"
    return options


def _names_levels() -> bool:
    """Whether this PyTorch compiles for a level of x86-64; 2.13 does, 2.11 for this processor."""
    return hasattr(torch._inductor.config.cpp, "march")


def _fewest(device: str) -> int:
    """Rows of the denoiser: channels last, a convolution of one row is another case.

    On a CPU that is so with those releases of PyTorch that name no levels.
    """
    return 1 if device == "cpu" and _names_levels() else 2


def _needed(device: str) -> list[str]:
    if device == "cuda":
        major, minor = torch.cuda.get_device_capability()
        return [f"{major}{minor}"]
    if not _names_levels():
        from defectrt.engines.aoti_engine import capabilities

        return capabilities("cpu")
    from torch._inductor.cpu_vec_isa import pick_vec_isa

    return [platform.machine(), *str(pick_vec_isa()).lower().split()]


def _check_compiler() -> None:
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise MissingExtraError(
            "AOTInductor needs a C++ compiler and finds none; run: apt-get install g++, or name "
            "one with the variable CXX"
        ) from error


def _short(error: Exception) -> str:
    """What a compiler says at length, in a line."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    told = [line for line in lines if "error:" in line]
    return (told or lines)[0][:500]


@contextmanager
def _quiet() -> Iterator[None]:
    """PyTorch warns about its own internals."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
