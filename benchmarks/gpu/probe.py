"""The first stage: what this machine is, and how fast it multiplies, copies and writes."""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from .conditions import PACKAGES, answer, version
from .stage import Context

#: Name -> dtype, and whether float32 may be multiplied as TF32.
PRODUCTS = {
    "bfloat16": (torch.bfloat16, False),
    "float16": (torch.float16, False),
    "float32": (torch.float32, False),
    "tf32": (torch.float32, True),
}
_CARD = (
    "name,driver_version,memory.total,compute_cap,clocks.sm,clocks.max.sm,clocks.mem,"
    "power.limit,temperature.gpu,pstate"
)


def run(context: Context) -> None:
    """A row for the machine, and one for every ceiling."""
    take = context.results.take
    take("machine", partial(machine, context))
    for name in PRODUCTS:
        take(f"product {name}", partial(product, name, context))
    take("copy", partial(copy, context))
    take("fsync", partial(fsync, context))


def machine(context: Context) -> dict[str, Any]:
    """Card, driver, processors, memory, compilers, versions and ONNX Runtime's providers."""
    import onnxruntime
    from torch.utils.cpp_extension import CUDA_HOME

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return {
        "card": answer(["nvidia-smi", f"--query-gpu={_CARD}", "--format=csv,noheader"]),
        "cores": len(os.sched_getaffinity(0)),
        "memory_GB": round(memory, 1),
        "disk_GB": round(shutil.disk_usage(context.out).free / 1e9, 1),
        "compiler": answer(["g++", "--version"]).partition("\n")[0],
        "cuda_home": CUDA_HOME or "",
        "cuda": torch.version.cuda or "",
        "multiprocessors": 0
        if context.toy
        else torch.cuda.get_device_properties(0).multi_processor_count,
        "providers": onnxruntime.get_available_providers(),
        "versions": {name: version(name) for name in PACKAGES},
    }


def product(name: str, context: Context) -> dict[str, Any]:
    """FLOP/s of a large matrix product on random data, the median of its runs."""
    dtype, tf32 = PRODUCTS[name]
    n = 256 if context.toy else 8192
    a, b = (torch.randn(n, n, device=context.device).to(dtype) for _ in range(2))
    torch.backends.cuda.matmul.allow_tf32 = tf32
    seconds = timed(lambda: a @ b, context)
    return {"TFLOPs": 2 * n**3 / seconds / 1e12, "ms": 1e3 * seconds, "side": n}


def copy(context: Context) -> dict[str, Any]:
    """Bytes read and written by a copy on the device, and to it from the host's pinned memory."""
    size = 1 << (24 if context.toy else 32)
    here, there = (torch.empty(size, dtype=torch.int8, device=context.device) for _ in range(2))
    here.random_()
    seconds = timed(lambda: there.copy_(here), context)
    host = torch.empty(size // 16, dtype=torch.int8, pin_memory=not context.toy)
    upload = timed(lambda: here[: len(host)].copy_(host), context)
    return {
        "device_TBs": 2 * size / seconds / 1e12,
        "upload_GBs": len(host) / upload / 1e9,
        "bytes": size,
    }


def timed(call: Callable[[], object], context: Context) -> float:
    """Median seconds of a call, device included, after warming up."""
    wait = (lambda: None) if context.toy else torch.cuda.synchronize
    seconds = []
    for _ in range(3 + (3 if context.toy else 20)):
        wait()
        start = time.perf_counter()
        call()
        wait()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[3:])


def fsync(context: Context) -> dict[str, Any]:
    """Milliseconds to bring a small file to the disk, and bytes a second of a large one."""
    large = b"\0" * (1 << (20 if context.toy else 28))
    with tempfile.TemporaryDirectory(dir=context.out) as folder:
        small = [_written(Path(folder, f"{i}"), b"x" * 4096) for i in range(20)]
        seconds = _written(Path(folder, "large"), large)
    return {
        "small_ms": 1e3 * statistics.median(small),
        "large_GBs": len(large) / seconds / 1e9,
    }


def _written(path: Path, data: bytes) -> float:
    start = time.perf_counter()
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return time.perf_counter() - start
