"""``report.html``: every sample at a glance, in one file that opens from disk without a network.

A page of plain HTML, CSS and JavaScript (``report.html`` beside this module) with the samples as
JSON in it. Images are cut out around the defect and embedded, small and lossy; what counts are
the files, and the page links to them. Names come from outside and are hostile: they reach the
page as JSON in which ``<`` cannot occur, and the document as text, never as markup.
"""

from __future__ import annotations

import base64
import io
import json
import math
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from ..config.names import COMBINED
from ..files import write_whole
from ..images.preview import Shown, around, difference, evenly, resized, shown
from ..images.reading import read_image
from ..images.types import Mask
from ..masks.reading import read_region
from .records import FinishedDataset, KeptSample, read_finished

__all__ = ["MAX_EMBEDDED", "cut_outs", "described", "write_report"]

#: Samples whose images are in the page, about 20 kB each; of the others it has the figures.
MAX_EMBEDDED = 500
#: px a side of an embedded image.
_SIDE = 240
#: px of the longer side of the whole image, behind where the cut-out lies.
_OVERVIEW = 96
#: px of a cut-out: at least, and beyond the defect on each side.
_LEAST, _CONTEXT = 96, 24
#: How many times stronger a difference is shown.
_GAIN = 4
_FIGURES = (
    "visibility",
    "coverage",
    "seam",
    "strength",
    "refined_area",
    "mask_area",
    "changed_area",
)
_TEMPLATE = Path(__file__).with_name("report.html")
_PLACE = "/*DATA*/"


def write_report(out: Path) -> None:
    """Write ``report.html`` from what is in a finished folder.

    Raises `InputError` if the folder is not a job's, and `OutputError` if it cannot be written.
    """
    folder = read_finished(out)
    chosen = set(evenly(range(len(folder.entries)), MAX_EMBEDDED))
    samples = [
        described(entry) | (cut_outs(folder, entry) if i in chosen else {})
        for i, entry in enumerate(folder.entries)
    ]
    data = {
        "category": folder.category,
        "defect_types": folder.defect_types,
        "provider": str(folder.job.get("provider", "")),
        "gain": _GAIN,
        "embedded": len(chosen),
        "counts": _counts(folder),
        "types": _types(folder),
        "reasons": _reasons(folder),
        "samples": samples,
    }
    page = _TEMPLATE.read_text(encoding="utf-8")
    write_whole(out / "report.html", page.replace(_PLACE, _script_json(data), 1).encode())


def _counts(folder: FinishedDataset) -> dict[str, int]:
    kept, failed, refused = len(folder.entries), len(folder.failed), len(folder.refused)
    made = kept + len(folder.dropped) + refused
    counts = {
        "requested": made + failed,
        "placed": made,
        "generated": made,
        "kept": kept,
        "failed": failed,
    }
    return counts | ({"refused": refused} if refused else {})


def _types(folder: FinishedDataset) -> list[dict[str, Any]]:
    """What became of each type that was asked for, and the medians of its figures."""
    kept = Counter(entry.defect for entry in folder.entries)
    lost = [*folder.dropped, *folder.refused]
    dropped, failed = (
        Counter(str(r.get("defect")) for r in lines) for lines in (lost, folder.failed)
    )
    return [
        {
            "defect_type": name,
            "requested": kept[name] + dropped[name] + failed[name],
            "generated": kept[name] + dropped[name],
            "kept": kept[name],
            "failed": failed[name],
            "medians": _medians(entry.record for entry in folder.entries if entry.defect == name),
        }
        for name in dict.fromkeys((*folder.defect_types, COMBINED))
        if kept[name] + dropped[name] + failed[name]
    ]


def _medians(records: Iterable[dict[str, Any]]) -> dict[str, float | None]:
    """Of every figure, over the samples that have it."""
    values: dict[str, list[float]] = {name: [] for name in _FIGURES}
    for record in records:
        for name, known in values.items():
            if (value := _finite(record.get(name))) is not None:
                known.append(value)
    return {name: median(known) if known else None for name, known in values.items()}


def _reasons(folder: FinishedDataset) -> list[dict[str, Any]]:
    """What is not in the dataset and why, type by type; the most frequent reason first."""
    told: dict[tuple[str, str, str], list[Any]] = {}
    taken = ("", folder.refused)  # its reason says by whom
    for what, lines in (("not kept", folder.dropped), taken, ("failed", folder.failed)):
        for line in lines:
            key = what, str(line.get("defect")), str(line.get("reason"))
            told.setdefault(key, []).append([str(line.get("source")), line.get("sample")])
    return [
        {"what": what, "defect_type": name, "reason": reason, "count": len(s), "samples": s}
        for (what, name, reason), s in sorted(told.items(), key=lambda item: -len(item[1]))
    ]


def described(entry: KeptSample) -> dict[str, Any]:
    """A sample in the page: its types, its files, and the figures that it has."""
    record = entry.record
    sample: dict[str, Any] = {
        "defect_type": entry.defect,
        "defects": list(entry.defects),
        "source": entry.source,
        "number": _finite(record.get("sample")),
        "seed": str(record.get("seed", "")),
        "files": {"image": entry.image, "label": entry.label, "good": entry.good},
    }
    if entry.mask:
        sample["files"]["mask"] = entry.mask
    return sample | {name: _finite(record.get(name)) for name in _FIGURES}


def _finite(value: Any) -> float | None:
    return value if isinstance(value, int | float) and math.isfinite(value) else None


def cut_outs(folder: FinishedDataset, entry: KeptSample) -> dict[str, Any]:
    """The cut-outs of a sample as data URIs, and where they lie: [x, y, width, height]."""
    good, image = (read_image(folder.out / path) for path in (entry.good, entry.image))
    label = folder.label(entry)
    mask = read_region(folder.out / entry.mask, label.shape) if entry.mask else label
    box = around(mask | label, _LEAST, _CONTEXT)
    before, after = shown(good[box], good[box]), shown(image[box], good[box])
    images = {
        "good": _webp(resized(before, _SIDE)),
        "image": _webp(resized(after, _SIDE)),
        "difference": _webp(resized(difference(good[box], image[box], _GAIN), _SIDE)),
        "all": _webp(resized(shown(good, good), _OVERVIEW)),
        "mask": _png(_resized_mask(mask[box])),
        "label": _png(_resized_mask(label[box])),
    }
    y, x = box
    return {
        "box": [x.start, y.start, x.stop - x.start, y.stop - y.start],
        "size": [label.shape[1], label.shape[0]],
        "images": images,
    }


def _resized_mask(mask: Mask) -> Shown:
    """Smaller without losing a thin line: grey where a pixel of it lies."""
    return resized(mask.astype(np.uint8) * np.uint8(255), _SIDE)


def _webp(image: Shown) -> str:
    return _uri("webp", np.squeeze(image), quality=80)


def _png(image: Shown) -> str:
    return _uri("png", image, optimize=True)


def _uri(defect_type: str, image: Shown, **options: Any) -> str:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, defect_type, **options)
    return f"data:image/{defect_type};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _script_json(data: dict[str, Any]) -> str:
    """JSON that cannot end the script it stands in, whatever it holds: all of it is ASCII."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
