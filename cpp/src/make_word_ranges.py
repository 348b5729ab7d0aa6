"""Write word_ranges.inc: what \\w means in a manifest, asked of the very reader Python uses.

Run it with the runtime installed: ``python cpp/src/make_word_ranges.py``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import TypeAdapter, ValidationError
from pydantic.types import StringConstraints

HERE = Path(__file__).parent
SURROGATES = range(0xD800, 0xE000)


def ranges() -> list[tuple[int, int]]:
    """First and last code point of every run of word characters."""
    word = TypeAdapter(Annotated[str, StringConstraints(pattern=r"^\w$")])
    found: list[tuple[int, int]] = []
    for code in range(0x110000):
        if code in SURROGATES:
            continue
        try:
            word.validate_python(chr(code))
        except ValidationError:
            continue
        if found and found[-1][1] == code - 1:
            found[-1] = (found[-1][0], code)
        else:
            found.append((code, code))
    return found


def text() -> str:
    """The table as C++ initialisers."""
    cells = [f"{{0x{first:X}, 0x{last:X}}}," for first, last in ranges()]
    lines = [" ".join(cells[i : i + 5]) for i in range(0, len(cells), 5)]
    return "\n".join(["// Made by make_word_ranges.py.", *lines]) + "\n"


if __name__ == "__main__":
    (HERE / "word_ranges.inc").write_text(text(), encoding="utf-8")
