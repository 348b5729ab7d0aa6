"""YAML for other tools, without a library."""

from __future__ import annotations

import json
from typing import Any

__all__ = []


def _yaml(data: dict[str, Any]) -> str:
    """YAML of a mapping of mappings; JSON in its leaves, which YAML reads as it is."""
    lines = []
    for key, value in data.items():
        if isinstance(value, dict):
            lines.append(f"{key}:\n")
            lines += [f"  {k}: {json.dumps(v, ensure_ascii=False)}\n" for k, v in value.items()]
        else:
            lines.append(f"{key}: {json.dumps(value, ensure_ascii=False)}\n")
    return "".join(lines)
