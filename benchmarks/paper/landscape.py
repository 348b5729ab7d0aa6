"""L′ (Eq. 2) and Eq. 5 around a run's weights, on a plane of filter-normalised directions.

    python -m benchmarks.paper.landscape RUN DEFECTS OUT [--points 21] [--span 0.25] [--rows 16]

The weights of RUN are moved by x along one random direction and by y along another, in which every
filter has the length of the run's own (Li et al. 2018); both losses are measured at every point on
the same crops of DEFECTS with the same noise and timesteps, in float32, weighted by area or not as
the run was, without guidance. OUT gets landscape.csv, a line a point; landscape.json, with the
curvature and sharpness of both side by side; and landscape.svg. Whatever stops it, the same command
goes on.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from defectrt.errors import Cancelled, InputError
from defectrt.files import write_whole
from defectrt.progress import Progress
from defectrt.stopping import asked_to_stop
from defectrt.training.config import TrainConfig
from defectrt.training.data.crops import Augmentation, Crops
from defectrt.training.data.layouts import GOOD
from defectrt.training.data.samples import Sample
from defectrt.training.loop.runs import device_of
from defectrt.training.loop.stages import Stage, make_stage
from defectrt.training.models.stable_diffusion import open_model
from defectrt.training.proving.material import read_real
from defectrt.training.record import read_record

from .plane import direction, moving, shape, told
from .plot import draw

#: The two objectives, by the names that figures have, and as `make_stage` calls them.
OBJECTIVES = {"L′, Eq. 2": "denoise", "L, Eq. 5": "disentangle"}
CSV, JSON, SVG = "landscape.csv", "landscape.json", "landscape.svg"


class Losses:
    """Both losses of a run's model on fixed crops, with fixed noise and timesteps."""

    def __init__(
        self, run: Path, samples: Sequence[Sample], *, rows: int, seed: int, device: str
    ) -> None:
        """Open the run's weights. Raises `InputError` if it has not learned of the samples' types.

        Crops are those of training, neither mirrored nor turned, ``rows`` of them.
        """
        record = read_record(run)
        known = {p.name for p in record.prompts if p.role == "defect"}
        if strange := sorted({s.defect_type for s in samples} - known):
            raise InputError(f"{run}: makes {', '.join(sorted(known))}; not {', '.join(strange)}")
        chosen = TrainConfig(**record.config).model_copy(
            update={"guidance": 1.0, "lora": 0, "precision": "float32", "good": 0.0}
            | {"gradient_checkpointing": False}
        )
        model = open_model(run / "model")
        window = chosen.window or model.window
        self._stages: dict[str, Stage] = {
            name: make_stage(
                model,
                samples,
                chosen.model_copy(update={"objective": objective}),
                torch.device(device),
            )
            for name, objective in OBJECTIVES.items()
        }
        self.module = model.unet.eval()
        still = Augmentation("none", contrast=0, brightness=0)
        crops = Crops(
            samples, window, good=0, seed=seed, magnify=record.magnify, augmentation=still
        )
        size = min(rows, chosen.batch_size)
        self._batches = [crops.batch(number, size) for number in range(-(-rows // size))]
        self._seed = seed

    @torch.no_grad()
    def __call__(self) -> dict[str, float]:
        """Each loss as training would have it, the mean over the crops."""
        found = {}
        for name, stage in self._stages.items():
            values = []
            for number, batch in enumerate(self._batches):
                generator = torch.Generator().manual_seed(1_000_003 * self._seed + number)
                values.append(float(sum(stage(batch, generator).values())))
            found[name] = sum(values) / len(values)
        return found


def landscape(
    run: Path,
    defects: Path,
    out: Path,
    *,
    points: int = 21,
    span: float = 0.25,
    rows: int = 16,
    seed: int = 0,
    device: str = "cpu",
    quiet: bool = False,
) -> dict[str, Any]:
    """Measure both losses around a run's weights and write ``out``; returns landscape.json.

    ``points`` each way, odd, from -span to span in lengths of the filters. Raises `InputError` if
    ``out`` holds another landscape, `Cancelled` after Ctrl-C.
    """
    if points < 3 or points % 2 == 0:
        raise InputError(f"--points {points}: an odd number from 3 on, so that one is the run's")
    samples = [s for s in read_real(defects) if s.defect_type != GOOD]
    losses = Losses(run, samples, rows=rows, seed=seed, device=device_of(device))
    conditions = {
        "run": read_record(run).model_dump(include={"base_model", "base_sha256", "config"}),
        "crops": rows,
        "pictures": sorted(s.sha256() for s in samples),
        "points": points,
        "span": span,
        "seed": seed,
        "device": device,
    }
    at = np.linspace(-span, span, points)
    table = _Table(out, conditions)
    generator = torch.Generator().manual_seed(seed)
    directions = [direction(losses.module, generator) for _ in range(2)]
    places = [(float(x), float(y)) for y in at for x in at]
    with (
        asked_to_stop() as stop,
        moving(losses.module, directions) as move,
        Progress(len(places), "landscape", quiet=quiet) as progress,
    ):
        for done, place in enumerate(places):
            progress.update(done)
            if place in table.found:
                continue
            if stop.is_set():
                raise Cancelled(f"stopped after {done} of {len(places)} points; run it again")
            move(place)
            table.add(place, losses())
        progress.update(len(places))
    surfaces = {
        name: np.array([table.found[place][name] for place in places]).reshape(points, points)
        for name in OBJECTIVES
    }
    shapes = {name: shape(surface, at) for name, surface in surfaces.items()}
    body = conditions | {"shapes": {name: asdict(found) for name, found in shapes.items()}}
    write_whole(out / JSON, (json.dumps(body, indent=1, ensure_ascii=False) + "\n").encode())
    write_whole(out / SVG, draw(surfaces, at).encode())
    return body


class _Table:
    """landscape.csv: a line a point, on the disk as soon as it is known."""

    def __init__(self, out: Path, conditions: Mapping[str, Any]) -> None:
        """Go on with what is there. Raises `InputError` if it was measured otherwise."""
        self.found: dict[tuple[float, float], dict[str, float]] = {}
        self._path, marks = out / CSV, out / "conditions.json"
        said = json.dumps(conditions, indent=1, sort_keys=True)
        if marks.is_file() and marks.read_text() != said:
            raise InputError(f"{out}: holds a landscape of another run or grid; choose another OUT")
        if self._path.is_file() and marks.is_file():
            lines = self._path.read_text().rpartition("\n")[0].splitlines()  # but a cut-off one
            for x, y, *values in list(csv.reader(lines))[1:]:
                named = zip(OBJECTIVES, map(float, values), strict=True)
                self.found[float(x), float(y)] = dict(named)
        write_whole(marks, said.encode())
        head = ",".join(("x", "y", *OBJECTIVES.values()))
        kept = [_line(place, values) for place, values in self.found.items()]
        write_whole(self._path, "\n".join([head, *kept, ""]).encode())

    def add(self, place: tuple[float, float], values: Mapping[str, float]) -> None:
        self.found[place] = dict(values)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(_line(place, values) + "\n")


def _line(place: tuple[float, float], values: Mapping[str, float]) -> str:
    return ",".join(map(repr, (*place, *values.values())))


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("defects", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--points", type=int, default=21)
    parser.add_argument("--span", type=float, default=0.25)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    options = vars(parser.parse_args())
    for name, found in landscape(**options)["shapes"].items():
        print(name, *(f"{figure} {value:.4g}" for figure, value in told(found)), sep="; ")
    print(options["out"] / SVG, file=sys.stderr)


if __name__ == "__main__":
    from .command import run_as_command

    run_as_command(main)
