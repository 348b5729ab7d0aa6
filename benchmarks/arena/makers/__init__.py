"""Who makes defects, by name. A maker is

    make(shots, good, count, seed, out, **settings)

shots, good  samples with and without a defect
count        pictures a type of the shots
out          folder to write: TYPE/NAME.png and TYPE/NAME_mask.png, or an output of `synthesize`

Modules are imported when they are used.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

__all__ = ["ANOMALY", "MAKERS", "found"]

_HERE, _PORTS = "benchmarks.arena.makers", "benchmarks.arena.ports"
#: Name of a maker -> module:function.
MAKERS = {
    "cut-paste": f"{_HERE}.pasted:cut_paste",
    "CutPaste": f"{_HERE}.pasted:cutpaste",
    "Crop-Paste": f"{_HERE}.pasted:crop_paste",
    "Perlin": f"{_HERE}.perlin:make",
    "NSA": f"{_HERE}.nsa:make",
    "defect-synthesis": f"{_HERE}.procedural:make",
    "synthesize": f"{_HERE}.ours:make",
    "like": f"{_HERE}.ours:like",
    "O2MAG": f"{_PORTS}.o2mag:make",
    "DFMGAN": f"{_PORTS}.dfmgan:make",
    "AnomalyDiffusion": f"{_PORTS}.anomaly_diffusion:make",
}
#: What learns an engine by Eq. 5 and by L'; no rows by themselves.
LEARN, LEARN_NAIVE = f"{_HERE}.ours:learn_engine", f"{_HERE}.ours:learn_naive"
#: Anomaly detectors of `anomaly.py`.
ANOMALY = ("PatchCore", "RD4AD", "SuperSimpleNet")


def found(place: str) -> Callable[..., Any]:
    """The function at ``module:function``."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)
