"""Options of the command line from the fields of a description, and a file below them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import typer
from pydantic import BaseModel

from ..errors import UsageError

__all__ = ["given", "keys", "with_file", "with_options"]

#: Defaults that say nothing to a reader of the help.
_NOT_SHOWN: tuple[Any, ...] = (None, False, "", (), {})
#: Pairs that are written as one text, and how.
_INTERVALS = {tuple[float, float]: "<low,high>", tuple[int, int]: "<n|low,high>"}


def keys(*areas: type[BaseModel]) -> Iterator[tuple[str, Any]]:
    """Every key of the areas, by the name that it has in files, with its field."""
    for area in areas:
        for name, field in area.model_fields.items():
            yield field.alias or name, field


def with_options(
    *areas: type[BaseModel], leave: tuple[str, ...] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for every key of the areas but ``leave``, beside its own.

    The command takes them as ``**options``; `given` says which were given.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        own = [
            p
            for p in inspect.signature(function, eval_str=True).parameters.values()
            if p.kind != p.VAR_KEYWORD
        ]
        added = [_option(key, field) for key, field in keys(*areas) if key not in leave]
        function.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]
        function.__annotations__ |= {p.name: p.annotation for p in added}
        return function

    return decorate


def _option(key: str, field: Any) -> inspect.Parameter:
    """The option of one key; without it the file's value counts, or else this one."""
    kind, extra = field.annotation, field.json_schema_extra or {}
    shown = None if field.is_required() else field.get_default(call_default_factory=True)
    metavar = extra.get("metavar")
    if _is_many(kind):
        item = kind.__args__[0]
        metavar = metavar or ("<int>" if item is int else "<str>")
    if get_origin(kind) is dict or _is_many(kind):  # as texts: the description says what is wrong
        kind = list[str]
    elif interval := _INTERVALS.get(_bare(kind)):
        kind, metavar = str, interval
    flag = key.replace("_", "-")
    option = typer.Option(
        f"--{flag}/--no-{flag}" if kind is bool else f"--{flag}",
        help=field.description + (f" [default: {_text(shown)}]" if shown not in _NOT_SHOWN else ""),
        show_default=False,
        metavar=metavar,
        envvar=extra.get("envvar"),
    )
    return inspect.Parameter(
        key,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind | None, option],
    )


def _bare(kind: Any) -> Any:
    """A type without what is said of it, and without None."""
    kinds = [item for item in get_args(kind) if item is not type(None)]
    if get_origin(kind) is Annotated or (
        get_origin(kind) in (Union, UnionType) and len(kinds) == 1
    ):
        return _bare(kinds[0])
    return kind


def _is_many(kind: Any) -> bool:
    """A tuple of any length."""
    return get_origin(kind) is tuple and Ellipsis in kind.__args__


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def given(options: Mapping[str, Any], *areas: type[BaseModel]) -> dict[str, Any]:
    """The options that were given, as a description has them; KEY=VALUE pairs as a mapping."""
    found = {key: value for key, value in options.items() if value not in (None, [])}
    for key, field in keys(*areas):
        if key in found and get_origin(field.annotation) is dict:
            metavar = field.json_schema_extra["metavar"]
            found[key] = dict(_pair(key, text, metavar) for text in found[key])
        elif isinstance(found.get(key), list):
            found[key] = tuple(found[key])
    return found


def _pair(key: str, text: str, metavar: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    if not name or not value:
        raise UsageError(f"--{key} {text}: write {metavar}, as in --{key} hole=…")
    return name, value


def with_file(file: Path | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a YAML file, and over them the options."""
    from .yaml import read_yaml

    return (read_yaml(file) if file else {}) | dict(options)
