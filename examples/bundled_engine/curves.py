"""Draw the losses of training runs as one SVG, smoothed over a hundred steps.

python examples/bundled_engine/curves.py CURVES.svg OUT/base OUT/fine-tune
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

WIDTH, HEIGHT, MARGIN = 640, 220, 40
COLOURS = ("#c0392b", "#2c6fbb", "#2e8b57", "#8e44ad")
#: What is drawn of the figures in a log; the rest is on other scales.
TERMS = ("defect", "background", "matching", "regularizer", "l1", "levels")
#: Lines of a log that make one point: each stands for ten steps.
SMOOTH = 10


def points(log: Path) -> dict[str, list[tuple[int, float]]]:
    """Loss terms of a run by name: (step, mean) a hundred steps."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    curves = {}
    for term in TERMS:
        values = [(line["step"], line[term]) for line in lines if term in line]
        groups = [values[i : i + SMOOTH] for i in range(0, len(values), SMOOTH)]
        if groups:
            curves[term] = [(g[-1][0], sum(v for _, v in g) / len(g)) for g in groups]
    return curves


def panel(title: str, curves: dict[str, list[tuple[int, float]]], top: int) -> str:
    """One run: axes, and a line a term."""
    last = max(step for curve in curves.values() for step, _ in curve)
    high = max(value for curve in curves.values() for _, value in curve)
    wide, tall = WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN

    def place(step: float, value: float) -> tuple[float, float]:
        return MARGIN + wide * step / last, top + HEIGHT - MARGIN - tall * value / high

    parts = [f'<text x="{MARGIN}" y="{top + 24}" font-weight="bold">{title}</text>']
    for value in (0, high / 2, high):
        x, y = place(0, value)
        parts.append(f'<path d="M{x} {y:.1f}h{wide}" stroke="#ddd"/>')
        parts.append(f'<text x="4" y="{y + 4:.1f}">{value:.2f}</text>')
    parts.append(f'<text x="{WIDTH - MARGIN}" y="{top + HEIGHT - 20}" text-anchor="end">')
    parts.append(f"step {last}</text>")
    for i, (term, curve) in enumerate(curves.items()):
        path = "L".join("{:.1f} {:.1f}".format(*place(*point)) for point in curve)
        colour = COLOURS[i % len(COLOURS)]
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        x = WIDTH - MARGIN - 110
        parts.append(f'<text x="{x}" y="{top + 24 + 16 * i}" fill="{colour}">{term}</text>')
    return "\n".join(parts)


def main() -> None:
    """Read the command line and write the drawing."""
    out, *runs = map(Path, sys.argv[1:])
    panels = [panel(run.name, points(run / "log.jsonl"), HEIGHT * i) for i, run in enumerate(runs)]
    size = f'width="{WIDTH}" height="{HEIGHT * len(runs)}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif"'
    body = '<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(panels)
    out.write_text(f'{head} font-size="12">\n{body}\n</svg>\n')


if __name__ == "__main__":
    main()
