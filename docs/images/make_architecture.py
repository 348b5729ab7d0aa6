"""Draw the layers and their rooms, as they lie in the folders.

python docs/images/make_architecture.py [OUT]
"""

from __future__ import annotations

import ast
import sys
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: The layers, the highest first, with what each needs beside the ones below.
LAYERS = {
    "apps": "programs that stay open, on the runtime alone · fastapi, uvicorn",
    "export": "a trained model becomes an engine · torch, onnx",
    "training": "a few defects become a model · torch, diffusers",
    "kernels": "GPU operators · torch, triton",
    "runtime": "an engine makes defects · numpy, onnxruntime, no torch",
}
#: Rooms, the highest first: what a room imports lies behind it.
ORDER = {
    "apps": ("cli", "service"),
    "export": ("cli", "tensorrt"),
    "training": (
        "cli",
        "loop",
        "evaluation",
        "thresholds",
        "proving",
        "models",
        "data",
        "surfaces",
    ),
    "runtime": (
        "cli",
        "synthesis",
        "output",
        "masks",
        "engines",
        "images",
        "diffusion",
        "config",
    ),
}
CPP = "cpp: libdefectrt, the runtime for C and C++: the same engines, the same images"
WIDTH, LINE, PAD = 880, 18, 12


def rooms(layer: str) -> list[str]:
    """The folders of a layer that hold modules."""
    names = {p.parent.name for p in (ROOT / layer).glob("*/__init__.py")}
    order = ORDER.get(layer, ())
    return [*(n for n in order if n in names), *sorted(names - set(order))]


def story(room: Path) -> str:
    """What a room says of itself: the first sentence of its docstring."""
    text = ast.get_docstring(ast.parse((room / "__init__.py").read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split())


def text(x: int, y: int, content: str, style: str = "") -> str:
    """One line."""
    return f'<text x="{x}" y="{y}"{style}>{escape(content)}</text>'


def layer_box(layer: str, about: str, top: int) -> tuple[list[str], int]:
    """A layer with a line a room, from ``top`` down; and where it ends."""
    names = rooms(layer)
    tall = PAD + LINE * (1 + len(names)) + PAD
    parts = [
        f'<rect x="10" y="{top}" width="{WIDTH - 20}" height="{tall}" rx="6" fill="#f4f6f8" '
        'stroke="#57606a"/>',
        text(24, top + PAD + 10, layer, ' font-weight="bold"'),
        text(176, top + PAD + 10, about, ' fill="#57606a"'),
    ]
    for i, name in enumerate(names, 1):
        y = top + PAD + 10 + LINE * i
        parts.append(text(36, y, name, ' font-family="monospace"'))
        parts.append(text(176, y, story(ROOT / layer / name)))
    return parts, top + tall


def drawing() -> str:
    """The whole drawing as SVG."""
    parts, top = [], 10
    for layer, about in LAYERS.items():
        box, bottom = layer_box(layer, about, top)
        parts += box
        if layer != "runtime":
            parts.append(text(24, bottom + LINE, "↓ imports", ' fill="#57606a"'))
        top = bottom + LINE + 10
    parts += [
        text(
            24,
            top + 2,
            "an engine: a directory of graphs, prompts and schedules",
            ' fill="#57606a"',
        ),
        f'<rect x="10" y="{top + 12}" width="{WIDTH - 20}" height="40" rx="6" fill="#f4f6f8" '
        'stroke="#57606a"/>',
        text(24, top + 37, CPP),
    ]
    size = f'width="{WIDTH}" height="{top + 62}" viewBox="0 0 {WIDTH} {top + 62}"'
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">'
    )
    return (
        "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *parts, "</svg>"])
        + "\n"
    )


def main() -> None:
    """Write the drawing."""
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("architecture.svg")
    out.write_text(drawing(), encoding="utf-8")


if __name__ == "__main__":
    main()
