"""Texts for a terminal."""

from __future__ import annotations

__all__ = ["megabytes"]


def megabytes(size: int) -> str:
    """A number of bytes, for people."""
    return f"{size / 1e6:.1f} MB"
