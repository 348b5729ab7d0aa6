"""What this program makes: by an engine, by ``--like``, and the engine learned from the shots."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from defectrt.synthesis.job import synthesize
from defectrt.training.data.samples import Sample

from ..folds import write_samples
from .writing import by_type, types_of

__all__ = ["learn_engine", "like", "make"]


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
    from defectrt.export.learn import learn

    learn(
        {name: [(s.path, s.mask) for s in own] for name, own in by_type(shots).items()},
        [s.path for s in good],
        out=out,
        seed=seed,
        overwrite=True,
        **options,
    )
