"""The directory of a run: one process at a time, what went in, and how it went."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import nn

from defectrt import __version__
from defectrt.engines.manifest import DatasetEntry
from defectrt.errors import InputError, OutputError
from defectrt.files import tidy, write_whole

from ..config import TrainConfig
from ..data.samples import Sample
from ..record import RESUME, RunRecord, prompts_of, read_record

__all__ = ["fingerprint", "locked", "open_run", "record"]


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


def _fingerprint_of_masks(samples: Sequence[Sample]) -> str:
    digest = hashlib.sha256()
    for sample in samples:
        mask = sample.mask
        digest.update(f"{mask.shape}\n".encode() + np.packbits(mask).tobytes())
    return digest.hexdigest()


def record(
    config: TrainConfig, samples: Sequence[Sample], base: nn.Module, name: str, processes: int
) -> RunRecord:
    """What went in: versions, configuration, prompts, images, and ``base``, not yet trained."""
    return RunRecord(
        defectrt=__version__,
        torch=torch.__version__,
        base_model=name,
        base_sha256=fingerprint(base),
        image_size=config.window or 1,
        magnify=config.magnify,
        processes=processes,
        config=config.model_dump(mode="json"),
        prompts=prompts_of(samples, config),
        dataset=[
            DatasetEntry(name=f"{s.defect_type}/{s.path.name}", sha256=s.sha256()) for s in samples
        ],
        masks_sha256=_fingerprint_of_masks(samples),
    )


def open_run(
    run: Path, made: RunRecord, resume: bool, attach: Mapping[str, str] | None = None
) -> None:
    """Start a run with the record ``made``, or go on with one that was started with the same.

    ``attach`` are texts to put beside the record, by file name.

    ``steps`` and ``cooldown`` may differ, to go on for longer, and the number of processes if
    ``accumulate`` makes up for it. Raises `InputError` listing every
    difference.
    """
    path = run / "run.json"
    for directory in (run, run / "checkpoints"):
        tidy(directory)
    if path.exists():
        _compare(run, made, resume)
    texts = {path.name: made.model_dump_json(indent=2) + "\n"} | dict(attach or {})
    for name, text in texts.items():
        write_whole(run / name, text.encode(), advice=RESUME)


def _compare(run: Path, made: RunRecord, resume: bool) -> None:
    if not resume:
        raise InputError(f"{run}: holds a run already; add --resume, or another --out")
    before = read_record(run)
    started: dict[str, Any] = TrainConfig().model_dump(mode="json") | before.config
    now: dict[str, Any] = dict(made.config)
    changed = [
        f"{k}: {started[k]} -> {now[k]}"
        for k in now
        if k not in ("steps", "cooldown", "accumulate") and started[k] != now[k]
    ]
    takes, took = now["accumulate"] * made.processes, started["accumulate"] * before.processes
    if takes != took:  # or else a step is of the same crops, whoever computes them
        changed.append(
            f"accumulate x processes: {started['accumulate']} x {before.processes} -> "
            f"{now['accumulate']} x {made.processes}, and should stay {took}"
        )
    if before.base_sha256 != made.base_sha256:
        changed.append("the model is not the same")
    if before.dataset != made.dataset:
        changed.append("the training images are not the same")
    elif before.masks_sha256 != made.masks_sha256:
        changed.append("the masks of the training images are not the same")
    if changed:
        raise InputError(f"{run}: the run was started otherwise: " + "; ".join(changed))
