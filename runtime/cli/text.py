"""Texts for a terminal."""

from __future__ import annotations

__all__ = ["megabytes", "plain"]


def plain(text: str) -> str:
    """Without what a terminal would obey: names come from elsewhere."""
    return "".join(c if c.isprintable() else "?" for c in text)


def megabytes(size: int) -> str:
    """A number of bytes, for people."""
    return f"{size / 1e6:.1f} MB"
