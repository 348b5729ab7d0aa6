"""Runs from a configuration: read the images, open the model, train it, or one a type."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

from defectrt.errors import InputError
from defectrt.files import write_whole
from defectrt.images.folder import find_files, left_out_note

from ..bundled import open_base
from ..config import RunConfig, TrainConfig, dump_config
from ..data.dataset import read_dataset
from ..data.samples import GOOD, Sample, read_good, read_pairs
from ..data.splits import hashed, read_split, samples_of, whole
from ..record import RESUME
from .train import train

__all__ = ["device_of", "first_process", "start"]

CONFIG, SPLIT = "config.yaml", "split.json"


def start(
    run: RunConfig, training: TrainConfig, *, resume: bool = False, quiet: bool = False
) -> Iterator[Path]:
    """Train what the configuration says; yields each model's directory when it is whole."""
    folders = [*run.good, *run.defect.values(), *([run.data] if run.data else [])]
    files = (path for folder in folders for path in find_files(folder))
    if first_process() and (note := left_out_note(files)):
        print(f"note: {note}", file=sys.stderr)
    samples, attached = _read(run)
    defect_types = sorted({s.defect_type for s in samples} - {GOOD})
    _check(run, training, defect_types)
    if not run.per_defect_type:
        yield _train(run, training, samples, attached, resume, quiet)
        return
    if first_process():
        write_whole(run.out / CONFIG, dump_config(run, training).encode(), advice=RESUME)
    for defect_type in defect_types:
        prompts = {k: text for k, text in training.prompts.items() if k == defect_type}
        own = run.model_copy(update={"out": run.out / defect_type, "per_defect_type": False})
        chosen = [s for s in samples if s.defect_type in (defect_type, GOOD)]
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
    untrained = run.from_nothing or training.objective != "disentangle"
    return train(
        open_base(run.model, untrained=untrained),
        samples,
        training,
        run.out,
        base_model=run.model or "bundled",
        resume=resume,
        checkpoint_every=run.checkpoint_every,
        keep_checkpoints=run.keep_checkpoints,
        preview_every=run.preview_every,
        preview_steps=run.preview_steps,
        tensorboard=run.tensorboard,
        mlflow=run.mlflow,
        device=device_of(run.device),
        quiet=quiet,
        attach={CONFIG: dump_config(run, training), **attached},
    )


def _read(run: RunConfig) -> tuple[list[Sample], dict[str, str]]:
    """The images to train on, and the split that they are one side of, to be kept."""
    samples = [sample for folder in run.good for sample in read_good(folder)]
    for defect_type, folder in run.defect.items():
        samples += read_pairs(folder, defect_type, mask_threshold=run.mask_threshold)
    if run.data is None:
        return samples, {}
    dataset = read_dataset(run.data, run.layout, mask_threshold=run.mask_threshold)
    if run.split is None:
        own = dataset.samples()
        split = whole(dataset)
    else:
        split = read_split(run.split, dataset)
        own = samples_of(dataset, split, "train")
        split = hashed(split, dataset)
    return samples + own, {SPLIT: split.model_dump_json(indent=1) + "\n"}


def _check(run: RunConfig, training: TrainConfig, defect_types: Sequence[str]) -> None:
    """Refuse what the images cannot give, all of it in one message."""
    strangers = sorted(training.prompts.keys() - set(defect_types))
    faults = [
        (
            training.objective == "disentangle" and not defect_types,
            "the fine-tune needs defects: --data DIR or --defect TYPE=DIR",
        ),
        (
            run.per_defect_type and not defect_types,
            "a model a defect type needs defects: --data DIR or --defect TYPE=DIR",
        ),
        (bool(strangers), f"--prompt for {', '.join(strangers)}: there are no such defects"),
    ]
    found = [text for wrong, text in faults if wrong]
    if found:
        raise InputError("\n".join(found))


def first_process() -> bool:
    """Whether this is the process that writes and speaks, of those that a launcher started."""
    return os.environ.get("RANK", "0") == "0"


def device_of(name: str) -> str:
    """A device by name; ``auto`` is a GPU where there is one."""
    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"
