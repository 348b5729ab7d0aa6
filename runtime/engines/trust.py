"""Engines that are machine code run only if the user named them. See docs/decisions/0014."""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import EngineError, UsageError
from .manifest import Manifest

__all__ = ["require_trust"]

_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


def require_trust(directory: Path, manifest: Manifest, trust: str | None) -> None:
    """Raise `EngineError` unless the manifest's fingerprint is among those in ``trust``.

    trust holds fingerprints, divided by commas or spaces; `UsageError` if one is none.
    """
    named = re.split(r"[,\s]+", (trust or "").strip().lower())
    if wrong := [text for text in named if text and not _FINGERPRINT.fullmatch(text)]:
        raise UsageError(
            f"{wrong[0]!r} is no fingerprint of an engine: 64 hexadecimal digits, as "
            "`defectrt info` shows them"
        )
    if manifest.fingerprint not in named:
        raise EngineError(
            f"{directory}: an engine of the backend {manifest.backend} is machine code, which may "
            "do anything that you may do. If you know where it comes from, trust it with: "
            f"--trust {manifest.fingerprint}"
        )
