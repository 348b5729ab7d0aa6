"""``run.json``: what went into a training run, written once and read by all who build on it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from defectrt.config.engine import Magnify
from defectrt.engines.manifest import DatasetEntry, Prompt
from defectrt.errors import InputError
from defectrt.files import read_file

from .config import TrainConfig
from .data.samples import GOOD, Sample

__all__ = [
    "RESUME",
    "RunRecord",
    "listed",
    "prompt_of",
    "prompts_of",
    "read_record",
    "refuse_seen",
    "seen",
]

#: What to do when a run could not write.
RESUME = "the last checkpoint is whole; mend this and continue with --resume"
#: Runs that a run may build on, one on another.
_MAX_CHAIN = 16
#: Training images that a manifest names one by one, at most.
_LISTED = 1000
#: A run of very many images names each.
_MAX_BYTES = 256 << 20


class RunRecord(BaseModel):
    """What went in: versions, the model at the start, configuration, prompts and images.

    base_sha256   of the part that is trained, before the first step
    image_size    side of the crops, px
    magnify       px of a crop to one px of the image; fit: a crop is a whole image
    processes     that trained together
    masks_sha256  of the masks of all images in ``dataset``, in their order
    """

    model_config = ConfigDict(strict=True)

    defectrt: str = ""
    torch: str = ""
    base_model: str = ""
    base_sha256: str = ""
    image_size: Annotated[int, Field(ge=1, le=16384)]
    magnify: Magnify = 1
    processes: int = 1
    config: dict[str, JsonValue] = {}
    prompts: list[Prompt]
    dataset: list[DatasetEntry] = []
    masks_sha256: str = ""


def prompt_of(defect_type: str, config: TrainConfig) -> str:
    """The text that stands for a type: C_def, or C_m for a good image."""
    if defect_type == GOOD:
        return config.masked_prompt
    return config.prompts.get(defect_type, defect_type)


def prompts_of(samples: Sequence[Sample], config: TrainConfig) -> list[Prompt]:
    """All prompts of a run: C_bg, C_m, and C_def of every type in the samples."""
    types = sorted({sample.defect_type for sample in samples} - {GOOD})
    return [
        Prompt(role="background", name="background", text=config.background_prompt),
        Prompt(role="masked", name="masked", text=config.masked_prompt),
        *(Prompt(role="defect", name=name, text=prompt_of(name, config)) for name in types),
    ]


def read_record(run: Path) -> RunRecord:
    """The record of a run. Raises `InputError` naming all that is wrong with it."""
    path = run / "run.json"
    try:
        return RunRecord.model_validate_json(read_file(path, _MAX_BYTES))
    except OSError as error:
        raise InputError(f"{run}: not a run; expected a folder with run.json") from error
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()
        )
        raise InputError(f"{path}: not the record of a run: {faults}") from error


def seen(run: Path) -> dict[str, str]:
    """Hashes of the images that a run has learned from, and the name of each.

    The runs that it builds on count as well, as far as they are still where they were. Raises
    `InputError` if ``run`` is not a run.
    """
    found: dict[str, str] = {}
    for dataset in _chain(run):
        for entry in dataset:
            found.setdefault(entry.sha256, entry.name)
    return found


def refuse_seen(samples: Iterable[Sample], run: Path) -> None:
    """Raise `InputError` if a run has learned from any of the samples, by content."""
    known = seen(run)
    again = [sample.path.name for sample in samples if sample.sha256() in known]
    if again:
        names = ", ".join(again[:5]) + (f" and {len(again) - 5} more" if len(again) > 5 else "")
        raise InputError(
            f"{run}: has learned from {len(again)} of the images it should be measured on: "
            f"{names}. Hold images out with --split (see defectrt data split)"
        )


def _chain(run: Path) -> Iterator[list[DatasetEntry]]:
    """What a run has learned from, then what those have whose models it started from."""
    for _ in range(_MAX_CHAIN):
        record = read_record(run)
        yield record.dataset
        run = Path(record.base_model).parent
        if not record.base_model or not (run / "run.json").is_file():
            return


def listed(dataset: Sequence[DatasetEntry]) -> list[DatasetEntry]:
    """Training images as an engine or a base lists them; of very many, one entry a defect type.

    Its hash is that of the images' hashes, sorted, one a line, so that it can still be checked.
    """
    if len(dataset) <= _LISTED:
        return list(dataset)
    defect_types: dict[str, list[str]] = {}
    for entry in dataset:
        defect_types.setdefault(entry.name.partition("/")[0], []).append(entry.sha256)
    return [
        DatasetEntry(
            name=f"{defect_type} ({len(hashes)} images)",
            sha256=hashlib.sha256("\n".join(sorted(hashes)).encode()).hexdigest(),
        )
        for defect_type, hashes in defect_types.items()
    ]
