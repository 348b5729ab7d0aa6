"""A card that is not there: CUDA on host memory, TensorRT-RTX on ONNX Runtime.

It is strict where a card is silent: a copy past a buffer, a shape outside the profile or an
address that was never given is an error.
"""

from __future__ import annotations

import ctypes
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import onnxruntime as ort
import pytest

from defectrt.engines import tensorrt_engine

#: Fewest, usual and most rows of a pretended plan.
ROWS = (1, 4, 8)
TYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64}
SUCCESS, STREAM = 0, 7


class Cuda:
    """The functions of ``cuda.bindings.runtime`` that the engine calls."""

    cudaError_t = SimpleNamespace(cudaSuccess=SUCCESS)  # noqa: N815
    cudaMemcpyKind = SimpleNamespace(  # noqa: N815
        cudaMemcpyHostToDevice="up", cudaMemcpyDeviceToHost="down"
    )
    cudaDeviceAttr = SimpleNamespace(  # noqa: N815
        cudaDevAttrComputeCapabilityMajor="major", cudaDevAttrComputeCapabilityMinor="minor"
    )

    def __init__(self, capability=89, cards=1):
        self.capability, self.cards, self.memory = capability, cards, {}

    def cudaGetDeviceCount(self):  # noqa: N802
        return SUCCESS, self.cards

    def cudaDeviceGetAttribute(self, which, card):  # noqa: N802
        major, minor = divmod(self.capability, 10)
        return SUCCESS, major if which == "major" else minor

    def cudaStreamCreate(self):  # noqa: N802
        return SUCCESS, STREAM

    def cudaStreamSynchronize(self, stream):  # noqa: N802
        return (SUCCESS,)

    def cudaStreamDestroy(self, stream):  # noqa: N802
        return (SUCCESS,)

    def cudaMalloc(self, size):  # noqa: N802
        block = ctypes.create_string_buffer(size)
        address = ctypes.addressof(block)
        self.memory[address] = block
        return SUCCESS, address

    def cudaFree(self, address):  # noqa: N802
        del self.memory[address]
        return (SUCCESS,)

    def cudaMemcpyAsync(self, to, of, size, kind, stream):  # noqa: N802
        block = self.memory[to if kind == "up" else of]
        assert size <= len(block)
        assert stream == STREAM
        ctypes.memmove(to, of, size)
        return (SUCCESS,)


class Library:
    """The names of ``tensorrt_rtx_bindings`` that the engine uses."""

    __version__ = "pretended"

    TensorIOMode = SimpleNamespace(INPUT="in", OUTPUT="out")

    class ILogger:
        Severity = SimpleNamespace(ERROR=1)

    def __init__(self, cuda):
        self.cuda, self.compiled = cuda, []

    def Runtime(self, log):  # noqa: N802
        return SimpleNamespace(deserialize_cuda_engine=lambda data: self.open(log, data))

    @staticmethod
    def nptype(kind):
        return kind

    def open(self, log, data):
        if not data:
            log.log(1, "the plan is\nempty")
            return None
        return Plan(self, ort.InferenceSession(data, providers=["CPUExecutionProvider"]))


class Plan:
    """``ICudaEngine``."""

    def __init__(self, library, session):
        self.library, self.session = library, session
        self.inputs = {node.name: node for node in session.get_inputs()}
        self.all = self.inputs | {node.name: node for node in session.get_outputs()}
        self.num_io_tensors, self.streamable_weights_size = len(self.all), 0

    def get_tensor_name(self, i):
        return list(self.all)[i]

    def get_tensor_dtype(self, name):
        return TYPES[self.all[name].type]

    def get_tensor_mode(self, name):
        return "in" if name in self.inputs else "out"

    def get_tensor_shape(self, name):
        return tuple(s if isinstance(s, int) else -1 for s in self.all[name].shape)

    def get_tensor_profile_shape(self, name, profile):
        return [(rows, *self.get_tensor_shape(name)[1:]) for rows in ROWS]

    def create_runtime_config(self):
        config = SimpleNamespace(cache=None)
        config.create_runtime_cache = lambda: Cache(self.library)
        config.set_runtime_cache = lambda cache: setattr(config, "cache", cache)
        return config

    def create_execution_context(self, config):
        assert config.cache is not None
        return Context(self)


class Cache:
    """``IRuntimeCache``."""

    def __init__(self, library):
        self.library, self.data = library, b""

    def deserialize(self, data):
        self.library.compiled.append(data)
        self.data = data

    def serialize(self):
        return self.data or b"compiled"


class Context:
    """``IExecutionContext``: runs the session on what lies in the buffers."""

    def __init__(self, plan):
        self.plan, self.addresses, self.shapes = plan, {}, {}

    def set_tensor_address(self, name, address):
        assert address in self.plan.library.cuda.memory
        self.addresses[name] = address
        return True

    def set_input_shape(self, name, shape):
        least, _, most = self.plan.get_tensor_profile_shape(name, 0)
        assert least[0] <= shape[0] <= most[0]
        assert shape[1:] == least[1:]
        self.shapes[name] = shape
        return True

    def view(self, name, shape):
        kind = np.dtype(self.plan.get_tensor_dtype(name))
        block = self.plan.library.cuda.memory[self.addresses[name]]
        return np.frombuffer(block, kind, int(np.prod(shape))).reshape(shape)

    def execute_async_v3(self, stream):
        assert stream == STREAM
        (rows,) = {self.shapes[name][0] for name in self.plan.inputs}
        feeds = {name: self.view(name, self.shapes[name]) for name in self.plan.inputs}
        names = [name for name in self.plan.all if name not in self.plan.inputs]
        for name, result in zip(names, self.plan.session.run(names, feeds), strict=True):
            assert len(result) == rows
            self.view(name, result.shape)[...] = result
        return True


@contextmanager
def pretended_card(cache, capability=89, cards=1):
    """Let engines of the backend tensorrt-rtx find such a card; gives (CUDA, TensorRT-RTX)."""
    cuda = Cuda(capability, cards)
    library = Library(cuda)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensorrt_engine, "library", lambda backend: library)
        patch.setattr(tensorrt_engine, "_runtime", lambda: cuda)
        patch.setenv("XDG_CACHE_HOME", str(cache))
        yield cuda, library
