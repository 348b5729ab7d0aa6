"""Runs from a configuration: read the pictures, open the model, train it once or once a kind."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

from defectrt.errors import InputError

from ..config import RunConfig, TrainConfig, dump_config
from ..data.dataset import read_dataset
from ..data.samples import GOOD, Sample, read_good, read_pairs
from ..data.splits import hashed, read_split, whole
from ..models.stable_diffusion import open_model
from .checkpoint import write_file
from .run_directory import writing
from .train import train

__all__ = ["first_process", "start"]

CONFIG, SPLIT = "config.yaml", "split.json"


def start(
    run: RunConfig, training: TrainConfig, *, resume: bool = False, quiet: bool = False
) -> Iterator[Path]:
    """Train what the configuration says; yields each model's directory when it is whole."""
    samples, attached = _read(run)
    kinds = sorted({s.kind for s in samples} - {GOOD})
    _check(run, training, kinds)
    if not run.per_kind:
        yield _train(run, training, samples, attached, resume, quiet)
        return
    if first_process():
        with writing(run.out / CONFIG):
            run.out.mkdir(parents=True, exist_ok=True)
            write_file(run.out / CONFIG, dump_config(run, training).encode())
    for kind in kinds:
        prompts = {k: text for k, text in training.prompts.items() if k == kind}
        own = run.model_copy(update={"out": run.out / kind, "per_kind": False})
        chosen = [s for s in samples if s.kind in (kind, GOOD)]
        settings = training.model_copy(update={"prompts": prompts})
        yield _train(own, settings, chosen, attached, resume, quiet)


def _train(
    run: RunConfig,
    training: TrainConfig,
    samples: Sequence[Sample],
    attached: Mapping[str, str],
    resume: bool,
    quiet: bool,
) -> Path:
    return train(
        open_model(run.model),
        samples,
        training,
        run.out,
        base_model=run.model,
        resume=resume,
        checkpoint_every=run.checkpoint_every,
        keep_checkpoints=run.keep_checkpoints,
        preview_every=run.preview_every,
        preview_steps=run.preview_steps,
        tensorboard=run.tensorboard,
        device=_device(run.device),
        quiet=quiet,
        attach={CONFIG: dump_config(run, training), **attached},
    )


def _read(run: RunConfig) -> tuple[list[Sample], dict[str, str]]:
    """The pictures to train on, and the split that they are one side of, to be kept."""
    samples = [sample for folder in run.good for sample in read_good(folder)]
    for kind, folder in run.defect.items():
        samples += read_pairs(folder, kind, mask_threshold=run.mask_threshold or 1)
    if run.data is None:
        return samples, {}
    dataset = read_dataset(run.data, run.layout, mask_threshold=run.mask_threshold)
    if run.split is None:
        own = dataset.samples()
        split = whole(dataset)
    else:
        split = read_split(run.split, dataset)
        own = dataset.samples(split)
        split = hashed(split, dataset)
    return samples + own, {SPLIT: split.model_dump_json(indent=1) + "\n"}


def _check(run: RunConfig, training: TrainConfig, kinds: Sequence[str]) -> None:
    """Refuse what the pictures cannot give, all of it in one message."""
    strangers = sorted(training.prompts.keys() - set(kinds))
    faults = [
        (
            training.objective == "disentangle" and not kinds,
            "the fine-tune needs defects: --data DIR or --defect KIND=DIR",
        ),
        (
            run.per_kind and not kinds,
            "a model a kind needs defects: --data DIR or --defect KIND=DIR",
        ),
        (bool(strangers), f"--prompt for {', '.join(strangers)}: there are no such defects"),
    ]
    found = [text for wrong, text in faults if wrong]
    if found:
        raise InputError("\n".join(found))


def first_process() -> bool:
    """Whether this is the process that writes and speaks, of those that a launcher started."""
    return os.environ.get("RANK", "0") == "0"


def _device(name: str) -> str:
    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"
