"""Whether a candidate is a defect that may be kept, and which is the best."""

from __future__ import annotations

from ..config.synthesis import SynthesisConfig

__all__ = ["fault", "score", "seen", "unseen"]

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


def unseen(config: SynthesisConfig, shown: float, *, fills: bool = True) -> str | None:
    """Why what `appeared` in a share ``shown`` of a mask is no defect, if so.

    A mask that says where a defect may be rather than what it ``fills`` is not held to
    ``min_coverage``.
    """
    if shown == 0:
        return "no defect appeared"
    if fills and shown < config.min_coverage:
        return f"it covers only {shown:.1%} of its mask"
    return None


def seen(config: SynthesisConfig, shown: float) -> str | None:
    """Why what was to be healthy is not, if so: a defect `appeared` in a share ``shown``."""
    return None if unseen(config, shown) else f"painted healthy, {shown:.1%} of its mask shows"


def fault(
    config: SynthesisConfig,
    *,
    shown: float,
    visibility: float,
    coverage: float,
    seam: float,
    fills: bool = True,
    **_: float,
) -> str | None:
    """Why a candidate is not fit, if so.

    ``fills`` as in `unseen`; ``shown`` is the share of its mask in which it `appeared`,
    ``coverage`` that which is label.
    """
    if reason := unseen(config, min(shown, coverage), fills=fills):
        return reason
    if seam > config.max_leak * visibility and config.refine != "none":
        return f"it leaks: its border changed by {seam:.3f}, itself by {visibility:.3f}"
    return None
