"""Real beside made defects, enlarged, for eyes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

from PIL import Image, ImageDraw

from defectrt.images.preview import Shown, enlarged
from defectrt.images.types import Bits, Mask
from defectrt.images.window import place_window

__all__ = ["Row", "sheet"]

#: Side in px of what is shown around a defect, of a cell, and of a row's caption.
_AROUND, _CELL, _CAPTION = 64, 160, 22
_GAP = 4

Cell = tuple[Bits, Mask]


@dataclass(frozen=True)
class Row:
    """One type of defect: real and made ones, each an image [H,W,C] and where its defect is.

    ``remark`` is what must be known of the real ones.
    """

    name: str
    real: Sequence[Cell]
    made: Sequence[Cell]
    remark: str = ""


def sheet(rows: Sequence[Row]) -> bytes:
    """A PNG: for each type a line of real defects and one of made defects, all enlarged alike."""
    bands = [
        (f"{row.name}: {what}", [_cell(*cell) for cell in cells])
        for row in rows
        for what, cells in ((f"real{row.remark}", row.real), ("made", row.made))
    ]
    across = max(len(cells) for _, cells in bands)
    width = across * (_CELL + _GAP) + _GAP
    height = len(bands) * (_CELL + _CAPTION + _GAP)
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    for i, (caption, cells) in enumerate(bands):
        top = i * (_CELL + _CAPTION + _GAP)
        draw.text((_GAP, top + 5), caption, fill="black")
        for k, cell in enumerate(cells):
            image.paste(Image.fromarray(cell), (_GAP + k * (_CELL + _GAP), top + _CAPTION))
    image.save(data := BytesIO(), "PNG")
    return data.getvalue()


def _cell(image: Bits, mask: Mask) -> Shown:
    """[S,S,3] 8 bits: the defect and what is around it, at its own proportions."""
    return enlarged(image, image, place_window(mask, _AROUND, 8), _CELL)
