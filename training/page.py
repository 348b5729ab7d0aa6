"""Pages for people: one file with all that it shows, which opens without a network."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from defectrt.files import write_whole
from defectrt.images.preview import Shown

__all__ = ["COLOURS", "Line", "bullets", "curves", "figure", "table", "write_page"]

#: Colours that are readable on light and on dark.
COLOURS = ("#6b7785", "#c77700", "#0b72d0", "#1b8a4b", "#a33bc2", "#c2343b", "#008c95", "#7a5c00")

_TEMPLATE = Path(__file__).with_name("page.html")
_TITLE, _BODY = "<!--TITLE-->", "<!--BODY-->"
#: px of a plot, of its margins, and of the names beside it.
_WIDTH, _HEIGHT, _LEFT, _LOW, _NAMES = 760, 300, 64, 44, 230
#: Marks on an axis that is even.
_MARKS = 5

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Line:
    """A curve: its points, and where it might lie as well, by the same x."""

    name: str
    points: Points
    colour: str
    low: Points = ()
    high: Points = ()


def write_page(path: Path, title: str, body: Iterable[str]) -> None:
    """Write a page whose ``body`` is HTML. Raises `OutputError`."""
    page = _TEMPLATE.read_text(encoding="utf-8").replace(_TITLE, escape(title), 1)
    body = [f"<h1>{escape(title)}</h1>", *body]
    write_whole(path, page.replace(_BODY, "\n".join(body), 1).encode())


def bullets(texts: Iterable[str]) -> str:
    """A list of plain texts; nothing for none."""
    items = "".join(f"<li>{escape(text)}</li>" for text in texts)
    return f"<ul>{items}</ul>" if items else ""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; the first cell of a row names it. Heads and names are plain, other cells HTML."""
    top = "".join(f"<th>{escape(text)}</th>" for text in head)
    lines = "".join(
        f"<tr><th>{escape(name)}</th>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
        for name, *cells in rows
    )
    return f"<div class=wide><table><tr>{top}</tr>{lines}</table></div>"


def figure(image: Shown, caption: str) -> str:
    """A picture [H,W,3] of 8 bits with a plain text below it."""
    Image.fromarray(np.asarray(image)).save(data := BytesIO(), "PNG", optimize=True)
    text = base64.b64encode(data.getvalue()).decode()
    alt = escape(caption, quote=True)
    return (
        f'<figure><img alt="{alt}" src="data:image/png;base64,{text}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def curves(
    lines: Sequence[Line],
    across: str,
    upwards: str,
    *,
    logarithmic: bool = False,
    marks: Sequence[tuple[float, str]] = (),
) -> str:
    """Curves over a common x, with y from 0 to 1; ``marks`` are upright lines with a text."""
    xs = [x for line in lines for x, _ in line.points] + [x for x, _ in marks]
    axis = _Axis(min(xs), max(xs), logarithmic)
    parts = [_frame(axis, across, upwards)]
    for line in lines:
        if line.low and line.high:
            around = [*line.low, *reversed(line.high)]
            parts.append(f'<polygon points="{axis.path(around)}" fill="{line.colour}"/>')
        parts.append(f'<polyline points="{axis.path(line.points)}" stroke="{line.colour}"/>')
    for x, text in marks:
        at = axis.x(x)
        parts.append(f'<path d="M{at} 10V{_HEIGHT - _LOW}" class="zero" stroke-dasharray="4"/>')
        parts.append(f'<text x="{at + 4}" y="22">{escape(text)}</text>')
    parts += [
        f'<text x="{_WIDTH - _NAMES + 12}" y="{30 + 20 * i}" fill="{line.colour}">'
        f"{escape(line.name)}</text>"
        for i, line in enumerate(lines)
    ]
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">{"".join(parts)}</svg>'


@dataclass(frozen=True)
class _Axis:
    """Where values lie in a plot."""

    least: float
    most: float
    logarithmic: bool

    def x(self, value: float) -> float:
        low, high, value = (self._bent(v) for v in (self.least, self.most, value))
        wide = _WIDTH - _NAMES - _LEFT
        return round(_LEFT + wide * (value - low) / max(high - low, 1e-12), 1)

    def path(self, points: Points) -> str:
        return " ".join(f"{self.x(x)},{_y(y)}" for x, y in points)

    def marks(self) -> list[float]:
        if not self.logarithmic:
            return self._even()
        steps = [10.0**e * d for e in range(-3, 9) for d in (1, 2, 5)]
        return [v for v in steps if self.least <= v <= self.most] or [self.least, self.most]

    def _even(self) -> list[float]:
        """Round numbers, about as many as `_MARKS`."""
        wide = max(self.most - self.least, 1e-9) / _MARKS
        power = 10.0 ** np.floor(np.log10(wide))
        step = next(d * power for d in (1, 2, 5, 10) if d * power >= wide)
        first, last = np.ceil(self.least / step), np.floor(self.most / step)
        return [round(float(i * step), 9) for i in np.arange(first, last + 1)]

    def _bent(self, value: float) -> Any:
        return np.log(max(value, 1e-12)) if self.logarithmic else value


def _y(value: float) -> float:
    return round(10 + (1 - value) * (_HEIGHT - _LOW - 10), 1)


def _frame(axis: _Axis, across: str, upwards: str) -> str:
    right, bottom = _WIDTH - _NAMES, _HEIGHT - _LOW
    parts = [f'<path d="M{_LEFT} 10V{bottom}H{right}" class="zero"/>']
    for value in (0, 0.25, 0.5, 0.75, 1):
        parts.append(f'<path d="M{_LEFT} {_y(value)}H{right}" class="grid"/>')
        parts.append(
            f'<text x="{_LEFT - 6}" y="{_y(value) + 4}" text-anchor="end">{value:g}</text>'
        )
    parts += [
        f'<text x="{axis.x(value)}" y="{bottom + 16}" text-anchor="middle">{value:.3g}</text>'
        for value in axis.marks()
    ]
    middle = (_LEFT + right) / 2
    parts.append(
        f'<text x="{middle}" y="{_HEIGHT - 8}" text-anchor="middle">{escape(across)}</text>'
        f'<text x="-{bottom / 2}" y="16" text-anchor="middle" transform="rotate(-90)">'
        f"{escape(upwards)}</text>"
    )
    return "".join(parts)
