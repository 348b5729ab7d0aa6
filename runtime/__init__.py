"""defectrt puts realistic, labelled defects into photographs of good parts.

summary = defectrt.synthesize(images="good", engine="engine", masks="masks", out="data")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .job import Job, Summary, synthesize
    from .refine import Refinement
    from .sources import Masks

__version__ = "0.1.0"

__all__ = ["Job", "Masks", "Refinement", "Summary", "__version__", "synthesize"]


def __getattr__(name: str) -> Any:
    """Load the job when it is first asked for, so that the command line starts fast."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import job, refine

    return getattr(refine if name == "Refinement" else job, name)
