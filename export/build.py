"""Build an engine directory from a training run, and prove it before it is finished."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from defectrt import __version__
from defectrt.diffusion.schedule import Convention, Schedule, Solver
from defectrt.engines.manifest import (
    FORMAT_VERSION,
    MANIFEST,
    Manifest,
    dump,
    hash_file,
)
from defectrt.errors import Cancelled, OutputError, UsageError
from defectrt.files import write_directory
from defectrt.progress import Progress
from defectrt.training.record import listed

from .backend import Backend
from .config import STEPS
from .graphs import Onnx
from .proof import compare
from .rowstep import map_size
from .source import Source, open_run

__all__ = ["build"]


def build(
    run: Path,
    out: Path,
    backend: Backend | None = None,
    *,
    steps: Sequence[int] = STEPS,
    solver: Solver = "dpmsolver++",
    convention: Convention = "paper",
    map_side: int | None = None,
    defects: Sequence[str] = (),
    beside: Callable[[Path], object] | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> Path:
    """Build ``out`` from ``run`` (as `defectrt.training.loop.train.train` leaves it).

    backend makes the files, `Onnx` by default; steps are the schedules to include, the first being
    the default; defects the types to include, by default all that the run was trained on; beside
    writes further files of the engine into its folder. Raises
    `EngineError` if the engine and PyTorch differ by more than the backend's tolerance, `Cancelled`
    after Ctrl-C, and then leaves nothing behind.
    """
    backend = backend or Onnx()
    if out.exists() and not overwrite:
        raise OutputError(f"{out}: already there; add --overwrite, or choose another --out")
    if out.exists() and not (out / MANIFEST).exists():
        raise UsageError(f"{out}: not an engine, so it is not replaced")
    backend.check()
    source = open_run(run, defects)
    backend.prepare(source.model)
    side = map_size(source.model, map_side)
    tables = {n: source.model.noise_schedule.tables(n, convention, solver) for n in steps}

    with Progress(backend.stages + 2, "build-engine", quiet=quiet) as progress:

        def write(directory: Path) -> None:
            _export(backend, source, side, directory, progress)
            if beside:
                beside(directory)
            progress.update(backend.stages, now="comparing with PyTorch")
            manifest = _manifest(source, backend, directory, tables, (solver, convention), side)
            with backend.open(directory, manifest) as engine:
                errors = compare(
                    source, engine, side, backend.tolerance, backend.autoencoder_tolerance
                )
            progress.update(backend.stages + 1, now="writing the manifest")
            run_record = manifest.provenance.run | {"self_check": errors}
            provenance = manifest.provenance.model_copy(update={"run": run_record})
            dump(manifest.model_copy(update={"provenance": provenance}), directory)
            progress.update(backend.stages + 2, **{k: float(v) for k, v in errors.items()})

        try:
            write_directory(out, write, advice="no engine was written; mend this and build again")
        except KeyboardInterrupt:
            raise Cancelled(f"stopped; {out} was not written") from None
    return out


def _export(
    backend: Backend, source: Source, side: int, directory: Path, progress: Progress
) -> None:
    stage = -1

    def say(what: str, *, new: bool = True) -> None:
        nonlocal stage
        stage += new
        progress.update(stage, now=what)

    for part in source.parts(side):
        backend.export(part, directory, say)


def _manifest(
    source: Source,
    backend: Backend,
    directory: Path,
    tables: Mapping[int, Schedule],
    ways: tuple[Solver, Convention],
    side: int,
) -> Manifest:
    record, model, target = source.record, source.model, backend.target()
    solver, convention = ways
    channels, height, width = source.latent_shape
    return Manifest.model_validate_json(
        json.dumps(
            {
                "format": "defectrt-engine",
                "format_version": FORMAT_VERSION,
                "backend": backend.name,
                "precision": backend.precision,
                "target": target.model_dump() if target else None,
                "image": {
                    "channels": 3,
                    "height": record.image_size,
                    "width": record.image_size,
                },
                "latent": {"channels": channels, "height": height, "width": width},
                "attention": {"height": side, "width": side},
                "vae": {
                    "scaling_factor": model.vae.config.scaling_factor,
                    "shift_factor": float(model.vae.config.shift_factor or 0.0),
                },
                "magnify": record.magnify,
                "prompts": [prompt.model_dump() for prompt in record.prompts],
                "schedule": {
                    "solver": solver,
                    "convention": convention,
                    "prediction_type": model.prediction_type,
                    "train_timesteps": len(model.noise_schedule.alphas_cumprod),
                    "default_steps": next(iter(tables)),
                    "tables": {
                        str(n): {"inversion": table.inversion, "generation": table.generation}
                        for n, table in tables.items()
                    },
                },
                "provenance": {
                    "base_model": record.base_model,
                    "run": {"config": record.config},
                    "dataset": [entry.model_dump() for entry in listed(record.dataset)],
                    "tools": {
                        "defectrt": __version__,
                        "torch": torch.__version__,
                        **backend.tools(),
                    },
                },
                "files": {
                    path.name: hash_file(path).model_dump() for path in sorted(directory.iterdir())
                },
            }
        )
    )
