"""A training run, opened: the model, its prompts, and the three graphs that become an engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from defectrt.engines.manifest import PromptList
from defectrt.errors import InputError, UsageError
from defectrt.training.models.stable_diffusion import StableDiffusion, open_model
from defectrt.training.record import RunRecord, read_record

from .rowstep import RowStep

__all__ = ["Part", "Source", "open_run", "random_rows"]


@dataclass(frozen=True)
class Source:
    """A run, opened."""

    record: RunRecord
    model: StableDiffusion
    embeddings: Tensor
    content: Tensor

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        side = self.record.image_size // self.model.downscale
        return (int(self.model.unet.config.in_channels), side, side)

    def parts(self, map_side: int) -> Iterator[Part]:
        """Encoder, decoder and denoiser, made one at a time."""
        size = self.record.image_size
        yield Part(
            "encoder",
            _Encoder(self.model),
            ("latent",),
            lambda rows: {"pixels": torch.zeros(rows, 3, size, size)},
        )
        yield Part(
            "decoder",
            _Decoder(self.model),
            ("pixels",),
            lambda rows: {"latent": self._rows(rows)["latent"]},
        )
        yield Part(
            "denoiser",
            RowStep(self.model, self.embeddings, self.content, map_side),
            ("next_latent", "attention"),
            self._rows,
        )

    def _rows(self, count: int) -> dict[str, Tensor]:
        return random_rows(self, count, torch.Generator().manual_seed(0))


@dataclass(frozen=True)
class Part:
    """One graph of an engine.

    name     ``encoder``, ``decoder`` or ``denoiser``
    module   takes the inputs by name, the batch being the first dimension of each; its weights
             are copies, so a backend may cast and move them
    outputs  their names
    example  inputs of that many rows
    """

    name: str
    module: nn.Module
    outputs: tuple[str, ...]
    example: Callable[[int], dict[str, Tensor]]


def open_run(run: Path, defects: Sequence[str] = ()) -> Source:
    """Open a finished run, with all of its types of defect or some.

    Raises `InputError` if it is not finished or not a run, `UsageError` for unknown defect types.
    """
    path = run / "run.json"
    if not (run / "model").is_dir():
        state = "the run is not finished, go on with --resume" if path.exists() else "not a run"
        raise InputError(f"{run}: holds no model: {state}")
    record = read_record(run)
    if not any(prompt.role == "defect" for prompt in record.prompts):
        raise InputError(f"{run}: the run was trained without a defect; train it with --defect")
    try:
        TypeAdapter(PromptList).validate_python(record.prompts)
    except ValidationError as error:
        fault = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise InputError(f"{path}: not the record of a run: prompts: {fault}") from error
    if defects:
        record = _select(record, defects)
    model = open_model(run / "model")
    if record.image_size % model.downscale:
        raise InputError(
            f"{path}: an image_size of {record.image_size} is no multiple of {model.downscale}, "
            "the pixels of a latent pixel"
        )
    embeddings, content = model.encode_prompts([prompt.text for prompt in record.prompts])
    return Source(record, model, embeddings, content)


def _select(record: RunRecord, defects: Sequence[str]) -> RunRecord:
    """The record with the prompts of some types of defect only."""
    known = [prompt.name for prompt in record.prompts if prompt.role == "defect"]
    if unknown := [name for name in defects if name not in known]:
        raise UsageError(
            f"the run knows no defect {', '.join(unknown)}; it was trained on: {', '.join(known)}"
        )
    prompts = [p for p in record.prompts if p.role != "defect" or p.name in defects]
    return record.model_copy(update={"prompts": prompts})


class _Vae(nn.Module):
    """The VAE one way, with a copy of its own."""

    def __init__(self, model: StableDiffusion) -> None:
        super().__init__()
        self.vae = deepcopy(model.vae)
        self.model = replace(model, vae=self.vae)


class _Encoder(_Vae):
    def forward(self, pixels: Tensor) -> Tensor:
        return self.model.encode(pixels)


class _Decoder(_Vae):
    def forward(self, latent: Tensor) -> Tensor:
        return self.model.decode(latent)


def random_rows(
    source: Source, count: int, generator: torch.Generator, first: int = 0
) -> dict[str, Tensor]:
    """Rows in mixed phases: any timestep, mask, region and anchor; prompts in turn from ``first``.

    a and b are drawn rather than taken from a schedule, whose b can be so small that a wrong ε
    would not show.
    """
    c, h, w = source.latent_shape
    prompts, total = len(source.embeddings), len(source.model.noise_schedule.alphas_cumprod)
    draw = {"generator": generator}
    mask = (torch.rand(count, 1, h, w, **draw) < torch.rand(count, 1, 1, 1, **draw)).float()
    turn = torch.arange(first, first + count)
    return {
        "latent": torch.randn(count, c, h, w, **draw),
        "timestep": torch.randint(total, (count,), **draw),
        "mask": mask,
        "inside": turn % prompts,
        "outside": (turn + 1) % prompts,
        "a": 0.5 + torch.rand(count, **draw),
        "b": torch.randn(count, **draw),
        "region": 1 - mask,
        "anchor": torch.randn(count, c, h, w, **draw),
    }
