"""Build an engine directory from a training run, and prove it before it is finished."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Annotated

import numpy as np
import onnxruntime
import torch
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError
from torch import Tensor, nn

from defectrt import __version__
from defectrt.errors import EngineError, InputError, OutputError, UsageError
from defectrt.manifest import (
    FORMAT_VERSION,
    MANIFEST,
    DatasetEntry,
    Manifest,
    PromptList,
    dump,
    hash_file,
)
from defectrt.onnx_engine import OnnxEngine
from defectrt.progress import Progress
from defectrt.rows import Rows
from defectrt.schedule import Convention, Schedule, to_epsilon
from defectrt.training.attention import Masking
from defectrt.training.model import MaskedUNet, StableDiffusion, open_model

from .graphs import export_graph, halve_weights, move_prompt_tables, save_graph
from .rowstep import RowStep, map_size

__all__ = ["TOLERANCE", "build"]

#: Largest difference to PyTorch that is allowed, relative to the largest value of an output.
#: float32 rounding reaches about 1e-5 on the graphs seen so far; a wrong weight reaches 1e-1.
TOLERANCE = 1e-3
#: Training pictures that a manifest names one by one, at most.
_LISTED = 1000


class _Record(BaseModel):
    """What an engine needs from ``run.json``; the rest of it is the run's own business."""

    model_config = ConfigDict(strict=True)

    image_size: Annotated[int, Field(ge=1, le=16384)]
    prompts: PromptList
    base_model: str = ""
    dataset: list[DatasetEntry] = []
    config: dict[str, JsonValue] = {}


@dataclass(frozen=True)
class _Source:
    """A run, opened."""

    record: _Record
    model: StableDiffusion
    embeddings: Tensor
    content: Tensor

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        side = self.record.image_size // self.model.downscale
        return (int(self.model.unet.config.in_channels), side, side)


def build(
    run: Path,
    out: Path,
    *,
    steps: Sequence[int] = (50, 20, 10),
    convention: Convention = "diffusers",
    map_side: int | None = None,
    defects: Sequence[str] = (),
    half_weights: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
) -> Path:
    """Build ``out`` from ``run`` (as `defectrt.training.train.train` leaves it).

    steps are the schedules to include, the first being the default; defects the kinds to include,
    by default all that the run was trained on. ``half_weights`` rounds the
    weights to float16 and stores them so; arithmetic stays float32. Raises `EngineError` if
    ONNX Runtime and PyTorch differ by more than `TOLERANCE`, and then leaves nothing behind.
    """
    if out.exists() and not overwrite:
        raise OutputError(f"{out}: already there; add --overwrite, or choose another --out")
    if out.exists() and not (out / MANIFEST).exists():
        raise UsageError(f"{out}: not an engine, so it is not replaced")
    partial = out.with_name(f".{out.name}.partial")
    source = _open_run(run, defects)
    if half_weights:
        _round_weights(source.model)
    side = map_size(source.model, map_side)
    tables = {n: source.model.noise_schedule.tables(n, convention) for n in steps}
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        with Progress(5, "build-engine", quiet=quiet) as progress:
            for done, name in enumerate(("encoder", "decoder", "denoiser")):
                progress.update(done, exporting=name)
                _export(name, source, side, half_weights, partial)
            progress.update(3, checking="against PyTorch")
            manifest = _manifest(source, partial, tables, convention, side)
            errors = _compare(source, manifest, partial, side)
            progress.update(4, writing="the manifest")
            run_record = manifest.provenance.run | {"self_check": errors}
            provenance = manifest.provenance.model_copy(update={"run": run_record})
            dump(manifest.model_copy(update={"provenance": provenance}), partial)
            _replace(partial, out)
            progress.update(5, **{k: float(v) for k, v in errors.items()})
    except OSError as error:
        raise OutputError(f"{out}: the engine cannot be written: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out


def _open_run(run: Path, defects: Sequence[str]) -> _Source:
    path = run / "run.json"
    if not (run / "model").is_dir():
        state = "the run is not finished, go on with --resume" if path.exists() else "not a run"
        raise InputError(f"{run}: holds no model: {state}")
    record = _read_record(path)
    if defects:
        record = _select(record, defects)
    model = open_model(run / "model")
    if record.image_size % model.downscale:
        raise InputError(
            f"{path}: an image_size of {record.image_size} is no multiple of {model.downscale}, "
            "the pixels of a latent pixel"
        )
    embeddings, content = model.encode_prompts([prompt.text for prompt in record.prompts])
    return _Source(record, model, embeddings, content)


def _read_record(path: Path) -> _Record:
    try:
        text = path.read_bytes()
        roles = [prompt["role"] for prompt in json.loads(text)["prompts"]]
        if "defect" not in roles:
            raise InputError(
                f"{path.parent}: the run was trained without a defect; train it with --defect"
            )
        return _Record.model_validate_json(text)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()
        )
        raise InputError(f"{path}: not the record of a training run: {faults}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not the record of a training run: {error!r}") from error


def _select(record: _Record, defects: Sequence[str]) -> _Record:
    """The record with the prompts of some kinds of defect only."""
    known = [prompt.name for prompt in record.prompts if prompt.role == "defect"]
    if unknown := [name for name in defects if name not in known]:
        raise UsageError(
            f"the run knows no defect {', '.join(unknown)}; it was trained on: {', '.join(known)}"
        )
    prompts = [p for p in record.prompts if p.role != "defect" or p.name in defects]
    return record.model_copy(update={"prompts": prompts})


def _export(name: str, source: _Source, side: int, half: bool, directory: Path) -> None:
    rows = _random_rows(source, 2, torch.Generator().manual_seed(0))
    pixels = torch.zeros(2, 3, source.record.image_size, source.record.image_size)
    if name == "encoder":
        graph = export_graph(_Encoder(source.model), {"pixels": pixels}, ["latent"])
    elif name == "decoder":
        graph = export_graph(_Decoder(source.model), {"latent": rows["latent"]}, ["pixels"])
    else:
        module = RowStep(source.model, source.embeddings, source.content, side)
        graph = export_graph(module, rows, ["next_latent", "attention"], function=True)
        move_prompt_tables(graph, directory)
    if half:
        halve_weights(graph)
    save_graph(graph, directory, name)


@torch.no_grad()
def _round_weights(model: StableDiffusion) -> None:
    for part in (model.unet, model.vae):
        for parameter in part.parameters():
            parameter.copy_(parameter.half())


class _Encoder(nn.Module):
    def __init__(self, model: StableDiffusion) -> None:
        super().__init__()
        self.model, self.vae = model, model.vae

    def forward(self, pixels: Tensor) -> Tensor:
        return self.model.encode(pixels)


class _Decoder(nn.Module):
    def __init__(self, model: StableDiffusion) -> None:
        super().__init__()
        self.model, self.vae = model, model.vae

    def forward(self, latent: Tensor) -> Tensor:
        return self.model.decode(latent)


def _random_rows(
    source: _Source, count: int, generator: torch.Generator, first: int = 0
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


def _batches(prompts: int) -> list[int]:
    """Sizes of batches, several of them, with a row for every prompt."""
    sizes = [1, 3, 8]
    return sizes + [8] * ceil(max(0, prompts - sum(sizes)) / 8)


def _compare(source: _Source, manifest: Manifest, directory: Path, side: int) -> dict[str, float]:
    """Largest relative error of every output against PyTorch, over batches of 1, 3 and 8 rows.

    Every prompt is inside once and outside once. PyTorch takes the way of training, with prompt
    embeddings instead of tables, so that a wrong table is found too. Raises `EngineError` when an
    error passes `TOLERANCE`.
    """
    generator = torch.Generator().manual_seed(1)
    errors: dict[str, float] = {}
    size, first = source.record.image_size, 0
    with OnnxEngine(directory, manifest) as engine, torch.no_grad():
        for count in _batches(len(source.embeddings)):
            pixels = torch.rand(count, 3, size, size, generator=generator) * 2 - 1
            rows = _random_rows(source, count, generator, first)
            first += count
            step, attention = engine.step(Rows(**{k: v.numpy() for k, v in rows.items()}))
            expected_step, expected_attention = reference_step(source, rows, side)
            for name, got, expected in (
                ("encoder", engine.encode(pixels.numpy()), source.model.encode(pixels)),
                (
                    "decoder",
                    engine.decode(rows["latent"].numpy()),
                    source.model.decode(rows["latent"]),
                ),
                ("step", step, expected_step),
                ("attention", attention, expected_attention),
            ):
                # unlike max, np.maximum keeps what is not a number
                errors[name] = float(
                    np.maximum(errors.get(name, 0.0), _relative_error(got, expected))
                )
    wrong = [f"{k} {v:.2g}" for k, v in errors.items() if not v <= TOLERANCE]
    if wrong:
        raise EngineError(
            "the exported graphs differ from the model by more than "
            f"{TOLERANCE:g} of the largest value: {', '.join(wrong)}; nothing was written"
        )
    return errors


def reference_step(source: _Source, rows: dict[str, Tensor], side: int) -> tuple[Tensor, Tensor]:
    """The row step through the U-Net of training, with prompt embeddings."""
    masking = Masking(rows["mask"], content=source.content[rows["inside"]])
    prediction = MaskedUNet(source.model.unet)(
        rows["latent"],
        rows["timestep"],
        rows["mask"],
        source.embeddings[rows["inside"]],
        source.embeddings[rows["outside"]],
        masking,
    )
    alphas = torch.tensor(source.model.noise_schedule.alphas_cumprod)[rows["timestep"]]
    a, b, alpha = (x.view(-1, 1, 1, 1) for x in (rows["a"], rows["b"], alphas))
    epsilon = to_epsilon(source.model.prediction_type, prediction, rows["latent"], alpha).float()
    maps = [m for m in masking.maps if m.shape[-1] <= side]
    resized = [nn.functional.interpolate(m, (side, side), mode="bilinear") for m in maps]
    step = rows["region"] * (a * rows["latent"] + b * epsilon) + rows["anchor"]
    return step, torch.stack(resized).mean(0)


def _relative_error(got: np.ndarray, expected: Tensor) -> float:
    reference = expected.double().numpy()
    return float(np.abs(got - reference).max() / max(np.abs(reference).max(), 1e-12))


def _manifest(
    source: _Source,
    directory: Path,
    tables: Mapping[int, Schedule],
    convention: Convention,
    side: int,
) -> Manifest:
    record, model = source.record, source.model
    channels, height, width = source.latent_shape
    return Manifest.model_validate_json(
        json.dumps(
            {
                "format": "defectrt-engine",
                "format_version": FORMAT_VERSION,
                "backend": "onnx",
                "precision": "float32",
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
                "prompts": [prompt.model_dump() for prompt in record.prompts],
                "schedule": {
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
                    "dataset": [entry.model_dump() for entry in _short(record.dataset)],
                    "tools": {
                        "defectrt": __version__,
                        "torch": torch.__version__,
                        "onnxruntime": onnxruntime.__version__,
                    },
                },
                "files": {
                    path.name: hash_file(path).model_dump() for path in sorted(directory.iterdir())
                },
            }
        )
    )


def _short(dataset: Sequence[DatasetEntry]) -> list[DatasetEntry]:
    """The training pictures; of very many, one entry a kind instead of one a picture.

    Its hash is that of the pictures' hashes, sorted, one a line, so that it can still be checked.
    """
    if len(dataset) <= _LISTED:
        return list(dataset)
    kinds: dict[str, list[str]] = {}
    for entry in dataset:
        kinds.setdefault(entry.name.partition("/")[0], []).append(entry.sha256)
    return [
        DatasetEntry(
            name=f"{kind} ({len(hashes)} pictures)",
            sha256=hashlib.sha256("\n".join(sorted(hashes)).encode()).hexdigest(),
        )
        for kind, hashes in kinds.items()
    ]


def _replace(partial: Path, out: Path) -> None:
    """Put the finished directory in place; an old one stays until the new one is there."""
    old = out.with_name(f".{out.name}.old")
    if out.exists():
        shutil.rmtree(old, ignore_errors=True)
        out.rename(old)
    partial.rename(out)
    shutil.rmtree(old, ignore_errors=True)
