"""What this program makes: by an engine, by ``--like``, and the engine learned from the shots."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from defectrt.errors import InputError
from defectrt.synthesis.job import synthesize
from defectrt.training.data.samples import Sample

from ..folds import write_samples
from .writing import by_type, types_of

__all__ = ["learn_engine", "learn_naive", "like", "make"]


def make(
    shots: Sequence[Sample],
    good: Sequence[Sample],
    count: int,
    seed: int,
    out: Path,
    *,
    engine: str | None = None,
    types: Mapping[str, str] | None = None,
    **options: Any,
) -> None:
    """An output of ``defectrt synthesize`` on the good pictures.

    ``engine`` is a directory, the bundled one if left out; ``types`` names a type of the shots as
    the engine does; ``options`` are those of the command.
    """
    own = types_of(shots)
    wanted = [(types or {}).get(name, name) for name in own]
    synthesize(
        [str(s.path) for s in good],
        out,
        defect=",".join(wanted),
        count=-(-count * len(own) // len(good)),
        seed=seed,
        quiet=True,
        **({"engine": engine} if engine else {}),
        **options,
    )


def like(
    shots: Sequence[Sample],
    good: Sequence[Sample],
    count: int,
    seed: int,
    out: Path,
    **options: Any,
) -> None:
    """An output of ``defectrt synthesize --like``: the shots' own changes, warped."""
    folder = out.with_name(f"{out.name}-shots")
    shutil.rmtree(folder, ignore_errors=True)
    for name, own in by_type(shots).items():
        write_samples(own, folder / name)
        for shot in own:  # the very file: what was learned from is told by its hash
            shutil.copy(shot.path, folder / name / f"{shot.path.stem}.png")
    make(shots, good, count, seed, out, like=folder, **options)


def learn_engine(
    shots: Sequence[Sample],
    good: Sequence[Sample],
    count: int,
    seed: int,
    out: Path,
    **options: Any,
) -> None:
    """The engine that ``defectrt learn`` makes of the shots; ``count`` is not asked for."""
    learn = import_module("defectrt.export.learn").learn
    learn(
        {name: [(s.path, s.mask) for s in own] for name, own in by_type(shots).items()},
        [s.path for s in good],
        out=out,
        seed=seed,
        overwrite=True,
        **options,
    )


def learn_naive(
    shots: Sequence[Sample],
    good: Sequence[Sample],
    count: int,
    seed: int,
    out: Path,
    *,
    engine: str,
) -> None:
    """As ``engine`` was learned, by L' in place of Eq. 5: same base, samples, steps and masks.

    L' denoises the whole crop under the defect's prompt (Eq. 2); guidance is left out, since there
    is no second prompt to train it against. ``count`` and ``seed`` are not asked for: the run of
    ``engine``, beside it, says all.
    """
    from defectrt.export.build import build
    from defectrt.export.graphs import Onnx
    from defectrt.masks.examples import SHAPES_FILE
    from defectrt.training.bundled import open_base
    from defectrt.training.config import TrainConfig
    from defectrt.training.loop.train import train
    from defectrt.training.record import read_record

    ours, run = Path(engine), out.with_name(f"{out.name}-run")
    before = ours.with_name(f"{ours.name}-run")
    if not (before / "plan.json").is_file():
        raise InputError(f"{before}: lacks the run that {ours} was built from; learn it again")
    held = {*json.loads((before / "plan.json").read_bytes())["held_out"]}
    sides: tuple[list[Sample], list[Sample]] = ([], [])
    for sample in (*good, *shots):
        sides[f"{sample.defect_type}/{sample.path.name}" in held].append(sample)
    chosen = TrainConfig(**read_record(before).config)
    if not (run / "model").is_dir():
        train(
            open_base(None),
            sides[0],
            chosen.replace(objective="denoise", guidance=1.0),
            run,
            base_model="bundled",
            resume=True,
            checkpoint_every=50,
            held_out=sides[1],
            device="cpu",
        )
    examples = ours / SHAPES_FILE
    build(run, out, Onnx(half_weights=True), beside=lambda to: shutil.copy(examples, to))
