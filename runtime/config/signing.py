"""How made pictures are signed."""

from __future__ import annotations

from typing import Literal, TypeAlias

__all__ = ["Algorithm"]

#: Those of C2PA.
Algorithm: TypeAlias = Literal["es256", "es384", "es512", "ps256", "ps384", "ps512", "ed25519"]
