"""One ONNX graph through the builder of TensorRT or TensorRT-RTX, in a process of its own.

The two share their API, so the module is an argument. Nothing here needs torch: the process that
builds holds the graph and the builder, no model. It can be stopped at any moment, where the
builder itself looks up only between phases, which last minutes.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from defectrt.engines.tensorrt_engine import library
from defectrt.errors import DefectRTError, EngineError, UsageError
from defectrt.files import write_whole

if TYPE_CHECKING:
    import tensorrt

__all__ = ["Plan", "build_apart", "serialise"]


@dataclass(frozen=True)
class Plan:
    """What the builder is asked for.

    backend           ``tensorrt`` or ``tensorrt-rtx``: which module
    rows              fewest, usual and most rows of a call: the optimisation profile
    capabilities      compute capabilities that the plan shall run on; none for the card at hand
    tf32              whether float32 products may be rounded to TF32
    timing_cache      file of measured times to use and to add to; TensorRT-RTX measures nothing
    weight_streaming  whether the weights may stay in host memory while it runs
    plugin            compute capability to compile this project's attention for, if it is used
    """

    backend: str
    rows: tuple[int, int, int]
    capabilities: tuple[int, ...] = ()
    tf32: bool = True
    timing_cache: Path | None = None
    weight_streaming: bool = False
    plugin: int | None = None


def serialise(
    trt: Any, graph: Path, out: Path, plan: Plan, phase: Callable[[str], None] = lambda _: None
) -> None:
    """Build ``graph`` with the module ``trt`` and write the plan to ``out``.

    The network is strongly typed: the types are the graph's own. Raises `EngineError` with what
    the builder logged.
    """
    log = _log(trt)
    builder: tensorrt.Builder = trt.Builder(log)
    typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    if plan.plugin:
        typed |= 1 << int(trt.NetworkDefinitionCreationFlag.PREFER_AOT_PYTHON_PLUGINS)
    network: tensorrt.INetworkDefinition = builder.create_network(typed)
    parser: tensorrt.OnnxParser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(os.fspath(graph)):
        faults = [str(parser.get_error(i)) for i in range(parser.num_errors)]
        raise EngineError(f"{graph.name}: TensorRT does not read the graph: {'; '.join(faults)}")
    _allow_decomposition(trt, network)
    config: tensorrt.IBuilderConfig = builder.create_builder_config()
    config.add_optimization_profile(_profile(builder, network, plan.rows))
    config.progress_monitor = _monitor(trt, phase)
    if not plan.tf32:
        config.clear_flag(trt.BuilderFlag.TF32)
    if plan.weight_streaming:
        config.set_flag(trt.BuilderFlag.WEIGHT_STREAMING)
    if plan.capabilities:
        _set_capabilities(trt, config, plan.capabilities)
    if plan.timing_cache:
        known = plan.timing_cache.read_bytes() if plan.timing_cache.exists() else b""
        config.set_timing_cache(config.create_timing_cache(known), ignore_mismatch=False)
    memory: tensorrt.IHostMemory | None = builder.build_serialized_network(network, config)
    if memory is None:
        raise EngineError(f"{graph.name}: TensorRT builds no plan: {'; '.join(log.errors)}")
    out.write_bytes(memory)
    if plan.timing_cache and (cache := config.get_timing_cache()):
        write_whole(plan.timing_cache, bytes(cache.serialize()))


def _log(trt: Any) -> Any:
    """A logger that keeps errors, in one line each, and drops the rest."""

    class Log(trt.ILogger):
        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.Severity.ERROR:
                self.errors.append(" ".join(message.split())[:500])

    return Log()


def _monitor(trt: Any, phase: Callable[[str], None]) -> Any:
    """Hand on what the builder is at; it asks after every step whether to go on."""

    class Monitor(trt.IProgressMonitor):
        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            phase(name)

        def step_complete(self, name: str, step: int) -> bool:
            return True

        def phase_finish(self, name: str) -> None:
            pass

    return Monitor()


def _allow_decomposition(trt: Any, network: tensorrt.INetworkDefinition) -> None:
    """Without a fused kernel for a width or type, attention may be built of several kernels.

    Versions of TensorRT that have no attention layer always do.
    """
    kind = getattr(trt.LayerType, "ATTENTION_OUTPUT", None)
    for layer in (network.get_layer(i) for i in range(network.num_layers)):
        if kind is not None and layer.type == kind:
            layer.__class__ = trt.IAttentionOutputLayer
            layer.attention.decomposable = True


def _profile(
    builder: tensorrt.Builder, network: tensorrt.INetworkDefinition, rows: tuple[int, int, int]
) -> tensorrt.IOptimizationProfile:
    profile = builder.create_optimization_profile()
    for tensor in (network.get_input(i) for i in range(network.num_inputs)):
        rest = tuple(tensor.shape)[1:]
        profile.set_shape(tensor.name, *((count, *rest) for count in rows))
    return profile


def _set_capabilities(trt: Any, config: Any, capabilities: tuple[int, ...]) -> None:
    """TensorRT-RTX only."""
    config.num_compute_capabilities = len(capabilities)
    for index, capability in enumerate(capabilities):
        name = f"SM{capability}"
        known = getattr(trt.ComputeCapability, name, None)
        if known is None or not config.set_compute_capability(known, index):
            raise UsageError(f"TensorRT-RTX {trt.__version__} builds nothing for {name}")


def build_apart(graph: Path, out: Path, plan: Plan, phase: Callable[[str], None]) -> None:
    """`serialise` in a child process, which dies with a Ctrl-C here. Raises its errors."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_work, args=(graph, out, plan, there), daemon=True)
    child.start()
    there.close()
    try:
        while isinstance(message := here.recv(), str):
            phase(message)
    except EOFError:
        child.join()
        message = EngineError(
            f"{graph.name}: the builder ended with {child.exitcode}"
            + (", most likely for want of memory" if child.exitcode == -signal.SIGKILL else "")
        )
    finally:
        child.kill()
        child.join()
    if message is not None:
        raise message


def _work(graph: Path, out: Path, plan: Plan, connection: Connection) -> None:
    """In the child: says phases as texts, and at the end None or the error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent has it too, and kills
    try:
        trt = library(plan.backend)
        if plan.plugin:
            from .plugin import register_plugin

            register_plugin(trt, importlib.import_module("tensorrt.plugin"), plan.plugin)
        serialise(trt, graph, out, plan, connection.send)
        connection.send(None)
    except (DefectRTError, OSError) as error:
        connection.send(error)
