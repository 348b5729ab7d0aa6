"""The losses around a run's weights as one SVG: a map each, and both along each direction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: px of a map's side, of margins, and of the legend of the bands.
SIDE, MARGIN, LEGEND = 240, 44, 70
#: Loss over that of the centre at which bands end; the last is everything above.
BANDS = (0.95, 1.0, 1.05, 1.1, 1.25, 1.5, 2, 3, 5, 10)
COLOURS = ("#c77700", "#0b72d0")
CRISP = 'shape-rendering="crispEdges"'


def draw(surfaces: Mapping[str, Floats], at: Floats) -> str:
    """An SVG of losses [N,N] by y and x at the places ``at``, each over that of its centre."""
    ratios = {name: s / s[len(at) // 2, len(at) // 2] for name, s in surfaces.items()}
    panel = SIDE + MARGIN
    width, height = 2 * panel + LEGEND + MARGIN, 2 * panel + MARGIN
    parts = ['<rect width="100%" height="100%" fill="white"/>']
    for i, (name, ratio) in enumerate(ratios.items()):
        parts += [f'<g transform="translate({MARGIN + i * panel} {MARGIN})" {CRISP}>']
        parts += [*_map(name, ratio, at), "</g>"]
    parts += [f'<g transform="translate({2 * panel + MARGIN} {MARGIN})">', *_legend(), "</g>"]
    for i, axis in enumerate("xy"):
        c = len(at) // 2
        lines = {n: r[c] if axis == "x" else r[:, c] for n, r in ratios.items()}
        parts += [f'<g transform="translate({MARGIN + i * panel} {MARGIN + panel})">']
        parts += [*_slices(axis, lines, at), "</g>"]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"'
    body = "\n".join(parts)
    size = f'width="{width}" height="{height}" font-family="sans-serif" font-size="12"'
    return f"{head} {size}>\n{body}\n</svg>\n"


def _map(name: str, ratio: Floats, at: Floats) -> Iterator[str]:
    """Bands of a surface, interpolated between its points; a cross at the run's weights."""
    yield f'<text x="{SIDE / 2}" y="-10" text-anchor="middle" font-weight="bold">{name}</text>'
    fine = 81
    new = np.linspace(at[0], at[-1], fine)
    rows = np.array([np.interp(new, at, row) for row in ratio])
    whole = np.array([np.interp(new, at, column) for column in rows.T]).T
    bands = np.searchsorted(BANDS, whole)
    cell = SIDE / fine
    for y, row in enumerate(bands[::-1]):  # y grows upwards
        ends = [0, *(np.flatnonzero(np.diff(row)) + 1).tolist(), fine]
        for first, last in pairwise(ends):
            x, wide = round(first * cell, 2), round((last - first) * cell + 0.3, 2)
            yield (
                f'<rect x="{x}" y="{y * cell:.2f}" width="{wide}" height="{cell + 0.3:.2f}" '
                f'fill="{_shade(int(row[first]))}"/>'
            )
    middle = SIDE / 2
    yield f'<path d="M{middle - 5} {middle}h10M{middle} {middle - 5}v10" stroke="#c2343b"/>'
    yield from _axis(at)


def _axis(at: Floats) -> Iterator[str]:
    for share, value in ((0, at[0]), (0.5, 0.0), (1, at[-1])):
        yield (
            f'<text x="{share * SIDE:.0f}" y="{SIDE + 14}" text-anchor="middle">{value:g}</text>'
            f'<text x="-5" y="{(1 - share) * SIDE + 4:.0f}" text-anchor="end">{value:g}</text>'
        )


def _legend() -> Iterator[str]:
    yield '<text y="-10">L / L₀</text>'
    tall = SIDE / (len(BANDS) + 1)
    for i in range(len(BANDS) + 1):
        y = SIDE - (i + 1) * tall
        yield f'<rect y="{y:.1f}" width="16" height="{tall:.1f}" fill="{_shade(i)}"/>'
        if i < len(BANDS):
            yield f'<text x="21" y="{y + 4:.1f}">{BANDS[i]:g}</text>'


def _slices(axis: str, lines: Mapping[str, Floats], at: Floats) -> Iterator[str]:
    """Losses along one direction through the centre; upwards from the least to three L_0."""
    low, high = min(0.9, *(float(v.min()) for v in lines.values())), 3.0

    def place(x: float, value: float) -> tuple[float, float]:
        across = (x - at[0]) / (at[-1] - at[0])
        return across * SIDE, (1 - (min(value, high) - low) / (high - low)) * SIDE

    yield f'<rect width="{SIDE}" height="{SIDE}" fill="none" stroke="#ccc"/>'
    for value in (1, 2, 3):
        y = place(0, value)[1]
        yield f'<path d="M0 {y:.1f}H{SIDE}" stroke="#eee"/>'
        yield f'<text x="-5" y="{y + 4:.1f}" text-anchor="end">{value}</text>'
    for share, value in ((0, at[0]), (0.5, 0.0), (1, at[-1])):
        yield f'<text x="{share * SIDE:.0f}" y="{SIDE + 14}" text-anchor="middle">{value:g}</text>'
    for i, (name, values) in enumerate(lines.items()):
        path = "L".join(
            "{:.1f} {:.1f}".format(*place(x, v)) for x, v in zip(at, values, strict=True)
        )
        dashes = ' stroke-dasharray="5 4"' if i else ""  # the other shows where both are one
        yield f'<path d="M{path}" fill="none" stroke="{COLOURS[i]}" stroke-width="2"{dashes}/>'
        yield f'<text x="8" y="{18 + 16 * i}" fill="{COLOURS[i]}">{name}</text>'
    yield f'<text x="{SIDE / 2}" y="{SIDE + 30}" text-anchor="middle">L / L₀ along {axis}</text>'


def _shade(band: int) -> str:
    """From pale yellow, low, to dark blue."""
    share = band / len(BANDS)
    low, high = (253, 246, 178), (31, 38, 92)
    return "#" + "".join(
        f"{round(a + (b - a) * share):02x}" for a, b in zip(low, high, strict=True)
    )
