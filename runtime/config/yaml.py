"""YAML files of plain keys and values: read safely, refused with the line that is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ..errors import InputError

__all__ = ["read_yaml", "write_yaml"]

#: A configuration is some dozens of lines; anything larger is something else.
_LARGEST = 1 << 20


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, which also refuses a key that is given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise yaml.MarkedYAMLError(
                problem=f"given twice: {', '.join(twice)}", problem_mark=node.start_mark
            )
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """The keys and values of ``path``. Raises `InputError` saying where it cannot be read."""
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(_LARGEST + 1)
        if len(text) > _LARGEST:
            raise InputError(f"{path}: too large for a configuration (more than 1 MiB)")
        loader = _Loader(text)
        loader.name = path.name
        values = loader.get_single_data()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: the configuration cannot be read: {error}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise InputError(f"{path}: expected keys with values, such as 'steps: 500'")
    return values


def write_yaml(values: Mapping[str, Any]) -> str:
    """``values`` as YAML, in their order."""
    return yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)
