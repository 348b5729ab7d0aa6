"""The AOTInductor backend: three compiled programs that PyTorch's C++ runtime runs.

A program is machine code, so nothing of it is loaded before the user has trusted the manifest, its
hash is the manifest's, and its archive holds nothing else than such programs do. What is loaded is
a private copy: the very bytes that were checked. See docs/decisions/0014.
"""

from __future__ import annotations

import hashlib
import re
import threading
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from packaging.version import Version

from ..cores import cores
from ..diffusion.rows import Floats
from ..errors import EngineError
from .graph_engine import GraphEngine
from .manifest import FileEntry, Manifest, Target

__all__ = ["MOST_ROWS", "AotiEngine", "batches", "capabilities", "checked_copy"]

#: Rows that a program takes: from 64 on diffusers' upsampling takes another way.
MOST_ROWS = 63
#: Pictures that the encoder and the decoder take: one fills a device, and mostly one is waiting.
_PICTURES = [1]

#: Members of a program's archive.
_CODE = re.compile(r"\w[\w.-]*/data/aotinductor/model/\w[\w.-]*", re.ASCII)
_MARKS = re.compile(
    r"\w[\w.-]*/(archive_format|archive_version|byteorder|\.data/(version|serialization_id))",
    re.ASCII,
)
_CHUNK = 1 << 20


class AotiEngine(GraphEngine):
    """An engine directory opened with AOTInductor's runtime, see `engine.Engine`."""

    def __init__(
        self, directory: Path, manifest: Manifest, *, threads: int | None = None, calls: int = 1
    ) -> None:
        """Load programs that `verify` has checked and the user has trusted.

        On a CPU ``calls`` calls may run at once and share the threads; on a GPU one may. Raises
        `EngineError` if they were compiled for another machine or PyTorch.
        """
        super().__init__(manifest, threads, calls)
        target = _fitting(directory, manifest)
        files = self._files(directory, "pt2")
        self.provider = target.device
        self.calls = calls if target.device == "cpu" else 1
        self._rows = sorted(target.rows)
        self._each = max(1, (threads or cores()) // self.calls)
        card = _card(target) if target.device == "cuda" else None
        try:
            for name, path in files.items():
                with TemporaryDirectory(prefix="defectrt-") as folder:
                    copy = checked_copy(path, manifest.files[path.name], Path(folder))
                    program = _Program(path, copy, self.calls, card)
                self._graphs[name] = program if card is None else _Captured(program, card)
        except BaseException:
            self.close()
            raise

    def _compute(self, name: str, feeds: dict[str, Any]) -> list[Floats]:
        arrays = [feeds[key] for key in self._signatures[name].inputs]
        program, parts = self._graphs[name], []
        sizes = self._rows if name == "denoiser" else _PICTURES
        try:
            with _threads(self._each):
                for start, count, size in batches(len(arrays[0]), sizes):
                    take = np.minimum(np.arange(start, start + size), start + count - 1)
                    outputs = program(
                        [torch.from_numpy(np.ascontiguousarray(array[take])) for array in arrays]
                    )
                    parts.append([output[:count].numpy() for output in outputs])
        except RuntimeError as error:
            raise EngineError(f"{name}: AOTInductor failed: {error}") from error
        return [
            np.concatenate(part) if len(parts) > 1 else part[0] for part in zip(*parts, strict=True)
        ]


class _Program:
    """One program, loaded."""

    def __init__(self, path: Path, copy: Path, runners: int, card: int | None) -> None:
        try:
            self._loader = torch._C._aoti.AOTIModelPackageLoader(
                str(copy), "model", card is not None, runners, -1 if card is None else card
            )
        except RuntimeError as error:
            raise EngineError(f"{path}: AOTInductor cannot load the program: {error}") from error

    def __call__(self, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        outputs: list[torch.Tensor] = self._loader.run(inputs)
        return outputs


class _Captured:
    """A program on a GPU, as one CUDA graph for each size of a batch; never run on hardware.

    The first call of a size records it. Inputs and outputs of a graph stay where they are, so
    calls take turns. They may come from any thread, whose current card may be another.
    """

    def __init__(self, program: _Program, card: int) -> None:
        self._program, self._card, self._lock = program, card, threading.Lock()
        self._graphs: dict[int, tuple[torch.cuda.CUDAGraph, list[Any], list[Any]]] = {}

    def __call__(self, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        with self._lock, torch.cuda.device(self._card):
            size = len(inputs[0])
            if size not in self._graphs:
                self._graphs[size] = self._record([x.cuda() for x in inputs])
            graph, held, outputs = self._graphs[size]
            for mine, given in zip(held, inputs, strict=True):
                mine.copy_(given)
            graph.replay()
            return [output.cpu() for output in outputs]

    def _record(self, inputs: list[Any]) -> tuple[torch.cuda.CUDAGraph, list[Any], list[Any]]:
        """Run it on a stream of its own first: libraries choose and allocate what they need."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._program(inputs)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = self._program(inputs)
        return graph, inputs, outputs


def _card(target: Target) -> int:
    """The current card if the programs are for it, or else the first that they are for."""
    cards, current = capabilities("cuda"), torch.cuda.current_device()
    order: list[int] = [current, *range(len(cards))]
    return next(i for i in order if cards[i] in target.capabilities)


def batches(count: int, sizes: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Divide ``count`` rows: (first, rows, size that they are padded to).

    sizes are rising; without any, all up to `MOST_ROWS` are. As many of the largest as there are,
    and what is left in the smallest that holds it.
    """
    start = 0
    while start < count:
        rows = min(count - start, sizes[-1] if sizes else MOST_ROWS)
        yield start, rows, next((size for size in sizes if size >= rows), rows)
        start += rows


def capabilities(device: str) -> list[str]:
    """What this machine offers, in a `Target`'s words."""
    if device == "cpu":
        offered = torch.cpu.get_capabilities()
        level = torch.backends.cpu.get_cpu_capability().lower()
        levels = {"avx512": ["avx2", "avx512"]}.get(level, [level.replace(" ", "_")])
        return [*levels, *(n for n in offered if offered[n] is True), offered["architecture"]]
    if not torch.cuda.is_available():
        return []
    cards = (torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count()))
    return [f"{major}{minor}" for major, minor in cards]


def checked_copy(path: Path, entry: FileEntry, folder: Path) -> Path:
    """Copy a program to ``folder`` and check the copy, which is what PyTorch unpacks and loads.

    Raises `EngineError` if its hash is not the manifest's, or if the archive holds anything that a
    program does not: a path that leaves it, a compressed or repeated member, a pickle.
    """
    copy = folder / path.name
    digest = hashlib.sha256()
    with path.open("rb") as source, copy.open("wb") as out:
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
            out.write(chunk)
    if digest.hexdigest() != entry.sha256:
        raise EngineError(f"{path} changed while it was opened")
    try:
        with zipfile.ZipFile(copy) as archive:
            _check_members(path, archive)
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise EngineError(f"{path}: not a program of AOTInductor: {error}") from error
    return copy


def _check_members(path: Path, archive: zipfile.ZipFile) -> None:
    """One library with its source, and the marks of the format."""
    members = archive.infolist()
    names = [member.filename for member in members]
    code = [member for member in members if _CODE.fullmatch(member.filename)]
    faults = [f"{n!r}" for n in names if not _CODE.fullmatch(n) and not _MARKS.fullmatch(n)]
    faults += [f"{n!r} twice" for n in sorted({n for n in names if names.count(n) > 1})]
    faults += [f"{m.filename!r} compressed" for m in members if m.compress_type]
    if len({name.partition("/")[0] for name in names}) > 1:
        faults.append("several folders")
    if faults:
        raise EngineError(f"{path}: not a program of AOTInductor: it holds {', '.join(faults)}")
    if sum(member.filename.endswith(".so") for member in code) != 1:
        raise EngineError(f"{path}: not a program of AOTInductor: it holds no library, or several")


def _fitting(directory: Path, manifest: Manifest) -> Target:
    """The target, if this machine is one."""
    target = manifest.target
    if target is None:
        raise EngineError(f"{directory}: the manifest does not say what it was compiled for")
    wanted, here = target.runtime.get("torch"), Version(torch.__version__).public
    if wanted != here:
        raise EngineError(
            f"{directory}: compiled with PyTorch {wanted}, which alone can run it; here is {here}. "
            f"Build the engine again, or: pip install torch=={wanted}"
        )
    if target.device == "cuda" and not torch.cuda.is_available():
        raise EngineError(f"{directory}: compiled for an NVIDIA GPU, and PyTorch sees none here")
    offered, needed = capabilities(target.device), target.capabilities
    if target.device == "cuda" and not set(offered) & set(needed):
        raise EngineError(
            f"{directory}: compiled for compute capability {' or '.join(needed)}; here is "
            f"{', '.join(offered)}. Build the engine on this machine"
        )
    if target.device == "cpu" and (lacking := [n for n in needed if n not in offered]):
        raise EngineError(
            f"{directory}: compiled for a processor with {', '.join(lacking)}, which this one does "
            "not have. Build the engine on this machine"
        )
    return target


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """This thread's calls use that many threads of the CPU."""
    before = torch.get_num_threads()
    if before == count:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
