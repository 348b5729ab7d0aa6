"""Hostile files for the readers: whatever is in a file, it is read or refused, and nothing else.

    python benchmarks/fuzz.py [--seconds 60] [--seed 0]

Valid files of every kind are cut, extended, and changed in bytes at random places. A reader may
give a result or raise an error of `defectrt.errors`; any other exception, and a read of more than
ten seconds of the processor, is a fault, and its file is kept. One line of JSON for each kind; exit
code 1 if there was a fault.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from defectrt.config.yaml import read_yaml
from defectrt.engines.loading import BUNDLED_ENGINE
from defectrt.engines.manifest import read_manifest
from defectrt.errors import DefectRTError
from defectrt.images.reading import image_size, read_image
from defectrt.masks.reading import read_any_mask
from defectrt.output.records import MANIFEST, read_finished

#: Seconds of the processor that a file may take.
SLOW = 10.0


def images() -> Iterator[tuple[str, bytes]]:
    """Valid images in all formats and some of their forms, by their suffix."""
    rng = np.random.default_rng(0)
    grain = rng.integers(0, 255, (48, 40, 3), np.uint8)
    forms = [("RGB", {}), ("L", {}), ("P", {}), ("1", {}), ("CMYK", {}), ("RGBA", {}), ("I;16", {})]
    options = {
        "jpg": [{}, {"progressive": True}, {"restart_marker_blocks": 2}],
        "png": [{}],
        "tif": [{}, {"compression": "tiff_lzw"}, {"compression": "jpeg"}],
        "bmp": [{}],
    }
    for suffix, ways in options.items():
        for mode, _ in forms:
            picture = Image.fromarray(grain).convert("L" if mode == "I;16" else mode)
            picture = picture.convert("I;16") if mode == "I;16" else picture
            for way in ways:
                data = io.BytesIO()
                try:
                    picture.save(data, {"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix), **way)
                except (OSError, KeyError, ValueError):
                    continue  # this format has no such form
                yield suffix, data.getvalue()


def mutated(data: bytes, dice: random.Random) -> bytes:
    """Cut, grown, or with some bytes changed; the first ones more often, where headers are."""
    out = bytearray(data)
    for _ in range(dice.choice([1, 1, 2, 4, 16])):
        at = dice.randrange(min(len(out), dice.choice([64, 512, len(out)])) or 1)
        way = dice.random()
        if way < 0.6:
            out[at] = dice.choice([0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256)])
        elif way < 0.75:
            out[at : at + 4] = dice.randbytes(4)
        elif way < 0.85:
            del out[at : at + dice.randrange(1, 64)]
        elif way < 0.95:
            out[at:at] = out[at : at + dice.randrange(1, 64)]
        else:
            del out[max(1, at) :]
        if not out:
            break
    return bytes(out)


def kinds(folder: Path) -> dict[str, tuple[list[tuple[str, bytes]], Callable[[Path], object]]]:
    """For each kind its valid files, by the names that they get, and what reads them."""
    files = list(images())
    engine = folder / "engine"
    manifest = (BUNDLED_ENGINE / "engine.json").read_bytes()
    yaml = b"images: good\nsteps: 50\ndefect:\n  crack: 3\n  hole: 1\nmask_scale: [0.8, 1.25]\n"
    line = {"image": "a", "label": "b", "good": "c", "source": "d", "defect": "e", "mask": "f"}
    job = b'{"category": "parts", "defect_types": ["e"]}\n'
    (folder / "out").mkdir()
    (folder / "out" / "job.json").write_bytes(job)
    engine.mkdir()
    named = [(f"a.{suffix}", data) for suffix, data in files]
    return {
        "images": (named, read_image),
        "sizes": (named, image_size),
        "masks": (named, read_any_mask),
        "configurations": ([("c.yaml", yaml)], read_yaml),
        "manifests": ([("engine/engine.json", manifest)], lambda path: read_manifest(path.parent)),
        "datasets": (
            [(f"out/{MANIFEST}", 3 * (json.dumps(line).encode() + b"\n"))],
            lambda path: read_finished(path.parent),
        ),
    }


def main() -> None:
    """Read for as long as was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path(".cache/fuzz"), help="files of faults")
    options = parser.parse_args()
    dice, faults = random.Random(options.seed), 0
    with TemporaryDirectory() as name:
        all_kinds = kinds(Path(name))
        for kind, (files, read) in all_kinds.items():
            told, until = Counter[str](), time.monotonic() + options.seconds / len(all_kinds)
            while time.monotonic() < until:
                called, data = dice.choice(files)
                path = Path(name) / called
                path.write_bytes(mutated(data, dice))
                start = time.process_time()
                try:
                    read(path)
                    what = "read"
                except DefectRTError:
                    what = "refused"
                except Exception as error:
                    what = f"fault: {type(error).__name__}"
                if time.process_time() - start > SLOW:
                    what = "fault: slow"
                if what.startswith("fault"):
                    faults += 1
                    options.keep.mkdir(parents=True, exist_ok=True)
                    kept = options.keep / f"{kind}-{faults}{path.suffix}"
                    kept.write_bytes(path.read_bytes())
                told[what] += 1
            print(json.dumps({"kind": kind, "files": told.total(), **told}), flush=True)
    sys.exit(faults > 0)


if __name__ == "__main__":
    main()
