"""Whether a candidate is a defect that may be kept, and which is the best."""

from __future__ import annotations

from ..config.synthesis import SynthesisConfig

__all__ = ["fault", "score"]

#: A defect this strong, or covering this much of its mask, counts in full.
_STRONG, _COVERING = 0.2, 0.5


def score(*, visibility: float, coverage: float, seam: float, **_: float) -> float:
    """0 to 1: how strong a defect is, how much of its mask it covers, how little it leaks.

    Strength and cover count up to what is plain to see; beyond, more is not better.
    """
    if visibility <= 0:
        return 0.0
    strong, covering = min(1.0, visibility / _STRONG), min(1.0, coverage / _COVERING)
    return strong * covering * (1 - min(1.0, seam / visibility))


def fault(
    config: SynthesisConfig, *, visibility: float, coverage: float, seam: float, **_: float
) -> str | None:
    """Why a candidate is not fit, if so."""
    if coverage == 0:
        return "no defect appeared"
    if coverage < config.min_coverage:
        return f"it covers only {coverage:.1%} of its mask"
    if seam > config.max_leak * visibility and config.refine != "none":
        return f"it leaks: its border changed by {seam:.3f}, itself by {visibility:.3f}"
    return None
