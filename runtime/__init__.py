"""defectrt puts realistic, labelled defects into photographs of good parts.

summary = defectrt.synthesize(images="good", engine="engine", masks="masks", out="data")

with defectrt.Synthesizer() as synthesizer:
    result = synthesizer(image)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config.masks import Masks
    from .synthesis.job import Job, Summary, synthesize
    from .synthesis.refinement import Refinement
    from .synthesis.synthesizer import Part, Result, State, Synthesizer

__version__ = "0.1.0"

__all__ = [
    "Job",
    "Masks",
    "Part",
    "Refinement",
    "Result",
    "State",
    "Summary",
    "Synthesizer",
    "__version__",
    "synthesize",
]

#: Modules that are loaded when one of their names is first asked for, so that the command line
#: starts fast.
_MODULES = {
    "Masks": "datasets.sources",
    "Part": "synthesizer",
    "Refinement": "synthesis.refine",
    "Result": "synthesizer",
    "State": "synthesizer",
    "Synthesizer": "synthesizer",
}


def __getattr__(name: str) -> Any:
    """Load a module when one of its names is first asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES.get(name, 'job')}", __name__), name)
