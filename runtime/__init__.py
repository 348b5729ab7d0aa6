"""defectrt puts realistic, labelled defects into photographs of good workpieces.

summary = defectrt.synthesize("good")

with defectrt.Synthesizer(defect="scratch") as synthesizer:
    result = synthesizer(image)
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config.job import JobConfig, SynthesizerConfig
    from .synthesis.job import Summary, synthesize
    from .synthesis.synthesizer import Instance, Result, State, Synthesizer, Workpiece

# Nothing leaves the machine: ONNX Runtime reads this once, when it is first imported. Without it,
# it keeps an identity of the machine and a queue of events in the user's cache, to be sent.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# A thread of OpenMP (PyTorch) that waits sleeps; read when that is first loaded. Where cores are
# shared, threads that spin keep each other waiting: training was several times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

__version__ = "0.1.0"

#: Public names, and the modules that are loaded when one of them is first asked for, so that the
#: command line starts fast.
_MODULES = {
    "Instance": "synthesis.synthesizer",
    "JobConfig": "config.job",
    "Result": "synthesis.synthesizer",
    "State": "synthesis.synthesizer",
    "Summary": "synthesis.job",
    "Synthesizer": "synthesis.synthesizer",
    "SynthesizerConfig": "config.job",
    "Workpiece": "synthesis.synthesizer",
    "synthesize": "synthesis.job",
}

__all__ = [
    "Instance",
    "JobConfig",
    "Result",
    "State",
    "Summary",
    "Synthesizer",
    "SynthesizerConfig",
    "Workpiece",
    "__version__",
    "synthesize",
]


def __getattr__(name: str) -> Any:
    """Load a module when one of its names is first asked for."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    """The public names, loaded or not."""
    return sorted(__all__)
