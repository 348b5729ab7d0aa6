"""The directory of a run: one process at a time, what went in, and how it went."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import nn

from defectrt import __version__
from defectrt.errors import InputError, OutputError

from .checkpoint import tidy, write_file
from .config import TrainConfig
from .data import GOOD, Sample
from .stages import prompt_of

__all__ = ["fingerprint", "locked", "open_run", "record", "writing"]


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around writes to ``path``: turn an `OSError` into `OutputError` with what to do."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written: {error}. The last checkpoint is whole; "
            "mend this and continue with --resume"
        ) from error


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Hold ``run`` for this process; the lock ends with the process, however that ends.

    Raises `OutputError` if another process holds it.
    """
    try:
        run.mkdir(parents=True, exist_ok=True)
        held = FileLock(run / ".lock").acquire(blocking=False)
    except Timeout as error:
        raise OutputError(
            f"{run}: another process is training here; wait for it, or choose another --out"
        ) from error
    except OSError as error:
        raise OutputError(f"{run}: the run cannot be written here: {error}") from error
    with held:
        yield


def fingerprint(module: nn.Module) -> str:
    """sha256 over all parameters of ``module``: their names, shapes, types and values."""
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def record(
    config: TrainConfig, samples: Sequence[Sample], base: nn.Module, name: str, processes: int
) -> dict[str, Any]:
    """What went in: versions, configuration, prompts, pictures, and ``base``, not yet trained."""
    kinds = sorted({s.kind for s in samples} - {GOOD})
    return {
        "defectrt": __version__,
        "torch": torch.__version__,
        "base_model": name,
        "base_sha256": fingerprint(base),
        "image_size": config.window,
        "processes": processes,
        "config": config.model_dump(mode="json"),
        "prompts": [
            {"role": "background", "name": "background", "text": config.background_prompt},
            {"role": "masked", "name": "masked", "text": config.masked_prompt},
            *({"role": "defect", "name": kind, "text": prompt_of(kind, config)} for kind in kinds),
        ],
        "dataset": [{"name": f"{s.kind}/{s.path.name}", "sha256": s.sha256()} for s in samples],
    }


def open_run(
    run: Path, made: dict[str, Any], resume: bool, attach: Mapping[str, str] | None = None
) -> None:
    """Start a run with the record ``made``, or go on with one that was started with the same.

    ``attach`` are texts to put beside the record, by file name.

    ``steps`` and ``cooldown`` may differ, to go on for longer. Raises `InputError` listing every
    difference.
    """
    path = run / "run.json"
    for directory in (run, run / "checkpoints"):
        tidy(directory)
    if path.exists():
        _compare(path, made, resume)
    texts = {path.name: json.dumps(made, indent=2) + "\n"} | dict(attach or {})
    for name, text in texts.items():
        with writing(run / name):
            write_file(run / name, text.encode())


def _compare(path: Path, made: dict[str, Any], resume: bool) -> None:
    if not resume:
        raise InputError(f"{path.parent}: holds a run already; add --resume, or another --out")
    try:
        before = json.loads(path.read_text())
        was, processes = before["config"], before.get("processes", 1)
        dataset, base = before["dataset"], before.get("base_sha256", made["base_sha256"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not the record of a run: {error!r}") from error
    now = made["config"]
    started = TrainConfig().model_dump(mode="json") | was
    changed = [
        f"{k}: {started[k]} -> {now[k]}"
        for k in now
        if k not in ("steps", "cooldown") and started[k] != now[k]
    ]
    if processes != made["processes"]:
        changed.append(f"processes: {processes} -> {made['processes']}")
    if base != made["base_sha256"]:
        changed.append("the model is not the same")
    if dataset != made["dataset"]:
        changed.append("the training pictures are not the same")
    if changed:
        raise InputError(f"{path.parent}: the run was started otherwise: " + "; ".join(changed))
