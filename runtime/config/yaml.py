"""YAML files of plain keys and values: read safely, refused with the line that is wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ..errors import InputError
from ..files import read_file

__all__ = ["read_yaml", "write_yaml"]

#: Bytes. A configuration is some dozens of lines; anything larger is something else.
_LARGEST = 1 << 16
_DEEPEST = 16


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, which also refuses a key that is given twice, and aliases.

    A few aliases of aliases are gigabytes, and no configuration needs one.
    """

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.MarkedYAMLError(
                problem=f"*{event.anchor}: aliases are not read; write out what it stands for",
                problem_mark=event.start_mark,
            )
        self._depth += 1
        if self._depth > _DEEPEST:
            raise yaml.MarkedYAMLError(
                problem="nested too deeply", problem_mark=self.peek_event().start_mark
            )
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = sorted(name for name, count in Counter(names).items() if count > 1)
        if twice:
            raise yaml.MarkedYAMLError(
                problem=f"given twice: {', '.join(twice)}", problem_mark=node.start_mark
            )
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """The keys and values of ``path``. Raises `InputError` saying where it cannot be read."""
    try:
        loader = _Loader(read_file(path, _LARGEST).decode())
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
