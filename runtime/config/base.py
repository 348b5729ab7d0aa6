"""What every description is built on: frozen, strict, all faults in one message."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Self, TypeAlias, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from ..errors import UsageError

__all__ = ["Config", "Interval", "WholeInterval", "faults", "message", "names_a_path", "parts"]


def parts(value: Any) -> Any:
    """The parts of a text with commas, or of several, one after another; all else as it is."""
    given = (value,) if isinstance(value, str) else value
    if not isinstance(given, list | tuple):
        return value
    return tuple(p for one in given for p in (one.split(",") if isinstance(one, str) else (one,)))


def _interval(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    texts = value.split(",")
    if len(texts) != 2:
        raise ValueError(f"write LOW,HIGH, as in 0.8,1.25, not {value!r}")
    return texts


def _whole_interval(value: Any) -> Any:
    ends = value.split(",") if isinstance(value, str) else value
    ends = list(ends) if isinstance(ends, list | tuple) else [ends]
    try:
        numbers = [int(end) if isinstance(end, str) else operator.index(end) for end in ends]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) not in (1, 2):
        raise ValueError(f"write a number or LOW,HIGH, as in 1,3, not {value!r}")
    return numbers[0], numbers[-1]


#: From low to high; as a text LOW,HIGH.
Interval: TypeAlias = Annotated[tuple[float, float], BeforeValidator(_interval)]
#: Whole numbers from low to high; as a text LOW,HIGH, or one number for both.
WholeInterval: TypeAlias = Annotated[tuple[int, int], BeforeValidator(_whole_interval)]


def names_a_path(kind: Any) -> bool:
    """Whether a field of that type may name a file."""
    return kind is Path or any(map(names_a_path, get_args(kind)))


class Config(BaseModel):
    """A typed description; its fields are the options of the command line and the keys of files.

    Values that are not possible, and keys that are not known, raise `UsageError`, all of them in
    one message.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_empty_path(cls, value: Any, info: ValidationInfo) -> Any:
        """An empty text is no path: it would be the folder that a program happens to run in."""
        kind = cls.model_fields[info.field_name or ""].annotation
        if value == "" and Path in (kind, *get_args(kind)):
            raise ValueError("is empty; leave it out, or write . for the folder at hand")
        return value

    def __init__(self, **values: Any) -> None:
        """Check the values."""
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise UsageError(message(faults(error, type(self)))) from error

    def replace(self, **values: Any) -> Self:
        """The same with other values, checked."""
        names = {field.alias: name for name, field in type(self).model_fields.items()}
        given = {name: getattr(self, name) for name in self.model_fields_set}
        return type(self)(**given | {names.get(key, key): v for key, v in values.items()})


def message(found: Iterable[str]) -> str:
    """All faults in one message."""
    return "\n  ".join(("the options are not possible:", *found))


def faults(error: ValidationError, *areas: type[BaseModel]) -> Iterator[str]:
    """Each fault as ``key: what is wrong``; an unknown key with the nearest of the ``areas``."""
    known = [f.alias or name for area in areas for name, f in area.model_fields.items()]
    for fault in error.errors(include_url=False):
        key = ".".join(str(step) for step in fault["loc"])
        if fault["type"] == "extra_forbidden":
            close = get_close_matches(key, known, n=1)
            yield f"{key}: unknown key" + (f"; did you mean {close[0]}?" if close else "")
        elif fault["type"] == "missing":
            yield f"{key}: needed; give --{key} or {key}: in the file"
        elif fault["type"] == "value_error":
            text = fault["msg"].removeprefix("Value error, ")
            yield f"{key}: {text}" if key else text
        else:
            given = repr(fault["input"])
            yield f"{key}: {fault['msg'][0].lower()}{fault['msg'][1:]}, not {given[:60]}"
