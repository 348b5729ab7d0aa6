"""defectrt puts realistic, labelled defects into photographs of good workpieces.

summary = defectrt.synthesize("good")

with defectrt.Synthesizer(defect="scratch") as synthesizer:
    result = synthesizer(image)

defectrt.learn("defects", "good", out="engines/part")
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from .config.job import JobConfig, SynthesizerConfig
    from .export.learn import learn
    from .synthesis.job import JobState, Summary, synthesize
    from .synthesis.synthesizer import State, Synthesizer
    from .synthesis.workpiece import Instance, Result, Workpiece

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
    "Instance": "synthesis.workpiece",
    "JobConfig": "config.job",
    "JobState": "synthesis.job",
    "Result": "synthesis.workpiece",
    "State": "synthesis.synthesizer",
    "Summary": "synthesis.job",
    "Synthesizer": "synthesis.synthesizer",
    "SynthesizerConfig": "config.job",
    "Workpiece": "synthesis.workpiece",
    "synthesize": "synthesis.job",
}
#: Those of the layers above, and the extra that brings what these need.
_EXTRAS = {"learn": ("export.learn", "export")}

__all__ = [
    "Instance",
    "JobConfig",
    "JobState",
    "Result",
    "State",
    "Summary",
    "Synthesizer",
    "SynthesizerConfig",
    "Workpiece",
    "__version__",
    "learn",
    "synthesize",
]


def __getattr__(name: str) -> Any:
    """Load a module when one of its names is first asked for."""
    if name in _EXTRAS:
        return _of_extra(name, *_EXTRAS[name])
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)


def _of_extra(name: str, module: str, extra: str) -> Any:
    """A function of an extra; if that is not installed, one that says so when it is called."""
    from .errors import MissingExtraError
    from .extras import requires

    try:
        with requires(extra):
            return getattr(import_module(f".{module}", __name__), name)
    except MissingExtraError as error:
        reason = str(error)

    def missing(*_: Any, **__: Any) -> NoReturn:
        raise MissingExtraError(reason)

    missing.__name__, missing.__doc__ = name, reason
    return missing


def __dir__() -> list[str]:
    """The public names, loaded or not."""
    return sorted(__all__)
