"""Images and finished folders: written, and read back byte for byte."""

from __future__ import annotations

import json

import numpy as np
from PIL import Image

from defectrt.images.png import encode_png


def records(out):
    return [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]


def tree(out):
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}


def dataset_of(out):
    """All files of a dataset by name, byte for byte; the journal is not one."""
    return {name: data for name, data in tree(out).items() if not name.startswith("job.sqlite")}


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def write_folder(out, defect_types, samples, dropped=(), failed=(), category="plate"):
    """A finished output folder: of each sample (good, image, label, mask, record)."""
    out.mkdir()
    (out / "job.json").write_text(json.dumps({"category": category, "defect_types": defect_types}))
    lines = []
    for i, (good, image, label, mask, record) in enumerate(samples):
        name, base = f"{i:03}.png", out / "plate"
        defect_type = record["defect"]
        split = "test" if i % 5 == 4 else "train"
        paths = {
            "image": base / "test" / defect_type / name,
            "label": base / "ground_truth" / defect_type / f"{i:03}_mask.png",
            "good": base / split / "good" / name,
            "mask": out / "masks" / defect_type / name,
        }
        for path, array in zip(paths.values(), (image, label, good, mask), strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            bits = array.astype(np.uint8) * np.uint8(255) if array.dtype == bool else array
            path.write_bytes(encode_png(bits))
        lines.append({k: p.relative_to(out).as_posix() for k, p in paths.items()} | record)
    for name, records in (("manifest", lines), ("dropped", dropped), ("failed", failed)):
        text = "".join(json.dumps(record) + "\n" for record in records)
        (out / f"{name}.jsonl").write_text(text)
    return out
