"""ONNX Runtime's execution providers, by the names that users give.

A provider is there and takes the whole graph, or the engine does not open: nothing falls back to
the CPU in silence. See docs/decisions/0013.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from threading import Lock, Thread

import numpy as np
import onnxruntime as ort
from packaging.version import Version

from ..errors import DefectRTError, EngineError, UsageError
from .signature import Array, Signature

__all__ = [
    "PROVIDERS",
    "Provider",
    "installed",
    "open_session",
    "outdated",
    "require",
    "upgrade",
]

#: Operators on sizes and indices. ONNX Runtime keeps them on the CPU for a GPU's sake: a shape is
#: read there, and the way to the device and back would stall it. None of them does arithmetic.
_SIZES = frozenset(
    ("Shape", "Size", "Gather", "Concat", "Slice", "Squeeze", "Unsqueeze", "Cast", "Constant")
)
_TYPES = {np.float32: "tensor(float)", np.int64: "tensor(int64)"}
#: Rows of a batch for which a TensorRT graph is built, least, best and most.
_PROFILE = {"min": 1, "opt": 4, "max": 64}
#: Seconds after which a graph that is still being opened is given up; a provider that compiles it
#: may take many minutes.
OPENING = 1800.0
#: Seconds that one has to end once it is given up.
_GRACE = 5.0
#: Plugins that this process has loaded.
_loaded: set[str] = set()
_loading = Lock()


@dataclass(frozen=True)
class Provider:
    """One provider.

    name      ours
    ort       ONNX Runtime's
    package   brings it; builds of ONNX Runtime replace one another, a plugin stands beside one
    options   of a graph with so many threads
    narrow    options beside these for an engine whose precision is less than float32
    oldest    version of ONNX Runtime whose provider has a kernel for every operator of an engine
    sizes     ONNX Runtime may keep operators on sizes on the CPU
    device    has memory of its own, by this name, which inputs and outputs are bound to
    plugin    module of the package, if that is a plugin
    """

    name: str
    ort: str
    package: str
    options: Callable[[Signature, int], Mapping[str, str]]
    narrow: Mapping[str, str] = field(default_factory=dict)
    oldest: str = "1.23"
    sizes: bool = False
    device: str | None = None
    plugin: str = ""


def _none(signature: Signature, threads: int) -> dict[str, str]:
    return {}


def _cuda(signature: Signature, threads: int) -> dict[str, str]:
    """float32 is float32, and the same convolutions in every session: not what a race picks."""
    return {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}


def _openvino(signature: Signature, threads: int) -> dict[str, str]:
    return {"device_type": "CPU", "precision": "FP32", "num_of_threads": str(threads)}


def _profiles(prefix: str) -> Callable[[Signature, int], dict[str, str]]:
    """One build for all batches; without, every new size of a batch would build again."""

    def options(signature: Signature, threads: int) -> dict[str, str]:
        return {
            f"{prefix}_profile_{end}_shapes": ",".join(
                f"{name}:{'x'.join(str(rows if s == 'B' else s) for s in array.shape)}"
                for name, array in signature.inputs.items()
            )
            for end, rows in _PROFILE.items()
        }

    return options


PROVIDERS: dict[str, Provider] = {
    p.name: p
    for p in (
        Provider("cpu", "CPUExecutionProvider", "onnxruntime", _none),
        Provider(
            "cuda",
            "CUDAExecutionProvider",
            "onnxruntime-gpu",
            _cuda,
            narrow={"use_tf32": "1"},  # for what stays float32, of which the autoencoder is most
            oldest="1.25",  # Attention's first with a kernel
            sizes=True,
            device="cuda",
        ),
        Provider(
            "tensorrt",
            "TensorrtExecutionProvider",
            "onnxruntime-gpu",
            _profiles("trt"),
            sizes=True,
            device="cuda",
        ),
        Provider(
            "tensorrt-rtx",
            "NvTensorRTRTXExecutionProvider",
            "onnxruntime-ep-nv-tensorrt-rtx",
            _profiles("nv"),
            sizes=True,
            device="cuda",
            plugin="onnxruntime_ep_nv_tensorrt_rtx",
        ),
        Provider("openvino", "OpenVINOExecutionProvider", "onnxruntime-openvino", _openvino),
    )
}


def installed() -> list[str]:
    """Our names of the providers that are installed; that is not yet working."""
    there = ort.get_available_providers()
    return [
        p.name for p in PROVIDERS.values() if p.ort in there or (p.plugin and find_spec(p.plugin))
    ]


def require(name: str) -> Provider:
    """The provider of that name.

    Raises `UsageError` for a name that nobody knows, and `EngineError` if it is not installed, or
    so old that it would leave operators to the CPU, with the line that brings it.
    """
    if name not in PROVIDERS:
        raise UsageError(f"provider {name!r}: one of {', '.join(PROVIDERS)}")
    provider, there = PROVIDERS[name], installed()
    if name not in there:
        first = "" if provider.plugin else f"pip uninstall -y {ort.package_name} && "
        raise EngineError(
            f"this ONNX Runtime ({ort.__version__}) has no provider {name!r}; it has: "
            f"{', '.join(there)}; run: {first}pip install {provider.package}"
        )
    if fault := outdated(provider):
        raise EngineError(f"{fault}; run: {upgrade(provider)}")
    return provider


def outdated(provider: Provider) -> str | None:
    """What this ONNX Runtime's provider lacks, if it is too old for engines."""
    if Version(ort.__version__) >= Version(provider.oldest):
        return None
    return (
        f"{provider.name} in this ONNX Runtime ({ort.__version__}) has no kernel for Attention, "
        f"which would run on the CPU; {provider.oldest} or newer has"
    )


def upgrade(provider: Provider) -> str:
    """The line that brings a provider that is new enough."""
    return f"pip install --upgrade '{provider.package}>={provider.oldest}'"


def open_session(
    path: Path,
    provider: Provider,
    signature: Signature,
    threads: int,
    precision: str = "float32",
) -> ort.InferenceSession:
    """A graph of an engine of this precision on a provider that takes all of it.

    Raises `EngineError` if the graph is none or not one of this signature, if it takes longer than
    `OPENING` to open, and if the provider does not start or leaves operators to the CPU, other than
    those on sizes where it may.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    # a thread that waits sleeps: where cores are shared, one that spins keeps others from them
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    settings = dict(provider.options(signature, threads))
    if precision != "float32":
        settings |= provider.narrow
    chosen = [(provider.ort, settings)]
    try:
        if provider.plugin and provider.ort not in ort.get_available_providers():
            options.add_provider_for_devices(_plugged(provider), settings)
            chosen = []
        session = _in_time(
            lambda: ort.InferenceSession(str(path), sess_options=options, providers=chosen),
            give_up=lambda: options.set_load_cancellation_flag(True),
        )
        session.disable_fallback()
    except DefectRTError:
        raise
    except TimeoutError as error:
        raise EngineError(
            f"{path}: not open after {OPENING:.0f} s; is it the graph of an engine?"
        ) from error
    except Exception as error:  # ONNX Runtime's own errors share no narrower base
        raise EngineError(
            f"{path}: ONNX Runtime cannot open the graph on {provider.name}: {error}"
        ) from error
    if provider.ort not in session.get_providers():
        raise EngineError(
            f"{path}: ONNX Runtime could not start {provider.name} ({provider.ort}); "
            "see what of it works with: defectrt doctor"
        )
    _check_signature(path, session, signature)
    _check_placement(path, session, provider)
    return session


def _in_time(
    make: Callable[[], ort.InferenceSession], give_up: Callable[[], None]
) -> ort.InferenceSession:
    """What ``make`` returns, from a thread of its own, so that Ctrl-C and the clock are heard.

    Raises what it raises, or `TimeoutError` after `OPENING` seconds. Whatever is raised,
    ``give_up`` is called, and the thread has `_GRACE` seconds to end: a process that ends while it
    runs is aborted.
    """
    made: Future[ort.InferenceSession] = Future()

    def work() -> None:
        try:
            made.set_result(make())
        except BaseException as error:
            made.set_exception(error)

    thread = Thread(target=work, daemon=True)
    thread.start()
    try:
        return made.result(OPENING)
    except BaseException:
        give_up()
        thread.join(_GRACE)
        raise


def _plugged(provider: Provider) -> list[ort.OrtEpDevice]:
    """The device of a plugin, which is loaded once a process."""

    def devices() -> list[ort.OrtEpDevice]:
        return [device for device in ort.get_ep_devices() if device.ep_name == provider.ort]

    with _loading:
        if not devices() and provider.name not in _loaded:
            library = import_module(provider.plugin).get_library_path()
            ort.register_execution_provider_library(provider.ort, library)
            _loaded.add(provider.name)
    if not devices():
        raise EngineError(f"{provider.name} finds no device here that it can use")
    return devices()[:1]


def _check_placement(path: Path, session: ort.InferenceSession, provider: Provider) -> None:
    """The CPU takes what a provider leaves; see that this is nothing that computes."""
    if provider.name == "cpu":
        return
    if not hasattr(session, "get_provider_graph_assignment_info"):
        raise EngineError(
            f"this ONNX Runtime ({ort.__version__}) does not say which provider runs what; "
            f"{provider.name} needs 1.24 or newer"
        )
    parts = session.get_provider_graph_assignment_info()
    on_cpu = [n.op_type for p in parts if p.ep_name != provider.ort for n in p.get_nodes()]
    left = Counter(op for op in on_cpu if not (provider.sizes and op in _SIZES))
    if left:
        kinds = ", ".join(f"{count} {op}" for op, count in left.most_common(5))
        more = ", …" if len(left) > 5 else ""
        raise EngineError(
            f"{path}: {provider.name} does not take {left.total()} of "
            f"{sum(len(p.get_nodes()) for p in parts)} operators ({kinds}{more}) and would leave "
            "them to the CPU; choose another --provider"
        )


def _check_signature(path: Path, session: ort.InferenceSession, signature: Signature) -> None:
    faults = [
        f"{kind} {name}: {found}, the manifest says {wanted}"
        for kind, nodes, arrays in (
            ("input", session.get_inputs(), signature.inputs),
            ("output", session.get_outputs(), signature.outputs),
        )
        for name, found, wanted in _differences(nodes, arrays)
    ]
    if faults:
        raise EngineError(f"{path}: not the graph of this manifest: " + "; ".join(faults))


def _differences(
    nodes: Sequence[ort.NodeArg], arrays: Mapping[str, Array]
) -> list[tuple[str, str, str]]:
    wanted = {name: (_TYPES[array.kind], array.shape) for name, array in arrays.items()}
    found = {
        # ONNX Runtime names a dimension that is free, or gives None; a number is fixed
        n.name: (n.type, tuple(s if isinstance(s, int) else "B" for s in n.shape))
        for n in nodes
    }
    return [
        (name, str(found.get(name, "missing")), str(wanted.get(name, "nothing")))
        for name in sorted(found.keys() | wanted.keys())
        if found.get(name) != wanted.get(name)
    ]
