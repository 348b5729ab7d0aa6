"""Hugging Face ``datasets``: OUT/imagefolder, a folder a side with images, masks and metadata."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..images.png import encode_png
from ..images.reading import image_size
from .records import FinishedDataset, read_finished
from .split import Side, read_splitting, split
from .written import Content, copied, name_of, write_folder

__all__ = ["write_imagefolder"]

#: What Hugging Face calls the sides.
_SIDES = {"train": "train", "val": "validation", "test": "test"}


def write_imagefolder(out: Path) -> None:
    """Write images, masks and ``metadata.jsonl`` for ``load_dataset("imagefolder", …)``.

    Columns: image, mask (8 bit, 0 and 255; black for a good image), label (the type of defect, or
    good), source, synthetic. Files that this program did not write are left alone, see
    `write_folder`.
    """
    folder = read_finished(out)
    files: dict[str, Content] = {}
    for name, side in split(folder.entries, read_splitting(out)).items():
        if side.goods:
            files |= {f"{_SIDES[name]}/{file}": made for file, made in _side(folder, side).items()}
    if files or (out / "imagefolder").is_dir():
        write_folder(out / "imagefolder", files)


def _side(folder: FinishedDataset, side: Side) -> dict[str, Content]:
    sources = {entry.good: entry.source for entry in folder.entries}
    files: dict[str, Content] = {}
    lines = []
    for path in side.goods:
        name = f"{name_of(path)}.png"
        files[name] = partial(copied, folder.out / path)
        files[f"masks/{name}"] = partial(_black, folder.out / path)
        lines.append(_line(name, "good", sources[path]))
    for entry in side.entries:
        name = f"{name_of(entry.image)}.png"
        files[name] = partial(copied, folder.out / entry.image)
        files[f"masks/{name}"] = partial(copied, folder.out / entry.label)
        lines.append(_line(name, entry.defect, entry.source))
    files["metadata.jsonl"] = "".join(json.dumps(line) + "\n" for line in lines).encode
    return files


def _line(name: str, label: str, source: str) -> dict[str, Any]:
    synthetic = label != "good"
    files = {"file_name": name, "mask_file_name": f"masks/{name}"}
    return files | {"label": label, "source": source, "synthetic": synthetic}


def _black(path: Path) -> bytes:
    return encode_png(np.zeros(image_size(path), np.uint8))
