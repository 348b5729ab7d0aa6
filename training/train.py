"""The training loop: one for the VAE, the base (Eq. 2) and the fine-tune (Eq. 5)."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from torch import Tensor, nn

from defectrt import __version__
from defectrt.errors import Cancelled, InputError, OutputError, TrainingError
from defectrt.progress import Progress

from . import checkpoint
from .checkpoint import Ema, State
from .data import GOOD, Batch, Crops, Sample
from .model import MaskedUNet, StableDiffusion
from .objectives import PromptEmbeddings, autoencoder, denoise, disentangle

__all__ = ["OBJECTIVES", "TrainConfig", "train"]

OBJECTIVES = ("autoencoder", "denoise", "disentangle")


@dataclass(frozen=True)
class TrainConfig:
    """What a run is made of, beside its model and its pictures.

    The defaults follow the paper where it speaks (U-Net only, 500 iterations) and DreamBooth
    where it does not (AdamW, constant rate); rates for models trained from nothing are higher.
    """

    objective: str = "disentangle"
    steps: int = 500
    batch: int = 4
    learning_rate: float = 5e-6
    warmup: int = 0
    weight_decay: float = 1e-2
    ema_decay: float = 0.999
    good: float = 0.5
    matching_by_area: bool = True
    background_prompt: str = "good surface"
    masked_prompt: str = ""
    precision: str = "float32"
    window: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse impossible values, all of them in one message."""
        faults = [
            (self.objective not in OBJECTIVES, f"objective: one of {', '.join(OBJECTIVES)}"),
            (self.steps < 1, "steps: at least 1"),
            (self.batch < 1, "batch: at least 1"),
            (not 0 < self.learning_rate < 1, "learning rate: between 0 and 1"),
            (self.warmup < 0, "warmup: 0 or more steps"),
            (not 0 <= self.ema_decay < 1, "EMA decay: from 0 to below 1"),
            (not 0 <= self.good <= 1, "good: a share from 0 to 1"),
            (self.precision not in ("float32", "bfloat16"), "precision: float32 or bfloat16"),
        ]
        found = [text for wrong, text in faults if wrong]
        if found:
            raise InputError("the training configuration is not possible: " + "; ".join(found))


def train(
    model: StableDiffusion,
    samples: Sequence[Sample],
    config: TrainConfig,
    run: Path,
    *,
    base_model: str = "",
    resume: bool = False,
    checkpoint_every: int = 250,
    device: str = "cpu",
    quiet: bool = False,
) -> Path:
    """Train ``model`` and write ``run/model``, a plain diffusers directory with averaged weights.

    ``run`` also gets ``run.json`` (configuration, prompts, dataset hashes), ``log.jsonl`` and
    ``checkpoints/``. With ``resume`` a stopped run goes on from its newest checkpoint and ends
    with the weights it would have had; ``steps`` may differ, to go on for longer. Ctrl-C
    finishes the step, saves, and raises `Cancelled`.
    Raises `TrainingError` if the loss is no longer finite.
    """
    _fit(model, config)
    record = _record(config, samples, base_model)
    _open_run(run, record, resume)
    stage = _stage(model, samples, config, device)
    state = State(
        stage.module, _optimizer(stage.module, config), Ema(stage.module, config.ema_decay)
    )
    newest = checkpoint.latest(run / "checkpoints")
    if resume and newest:
        checkpoint.load(state, newest)
    crops = Crops(samples, config.window, good=config.good, seed=config.seed)
    log = _Log(run / "log.jsonl", state.step)
    with Progress(config.steps, config.objective, quiet=quiet) as progress, _interrupt() as stop:
        while state.step < config.steps and not stop.is_set():
            losses = _step(state, stage, crops, config, device)
            speed = log.add(state.step, losses, config.batch)
            progress.update(state.step, **losses, crops_per_s=speed)
            if state.step % checkpoint_every == 0 or state.step == config.steps:
                checkpoint.save(state, run / "checkpoints")
    if state.step < config.steps:
        checkpoint.save(state, run / "checkpoints")
        raise Cancelled(f"stopped at step {state.step} of {config.steps}; go on with --resume")
    state.ema.copy_to(stage.module)
    stage.finish(crops)
    model.save(run / "model")
    return run / "model"


@dataclass(frozen=True)
class _Stage:
    """What one objective trains: a module, its loss terms, and the last touch at the end."""

    module: nn.Module
    losses: Callable[[Batch, torch.Generator], dict[str, Tensor]]
    finish: Callable[[Crops], None] = lambda crops: None


def _stage(
    model: StableDiffusion, samples: Sequence[Sample], config: TrainConfig, device: str
) -> _Stage:
    if config.objective == "autoencoder":
        return _autoencoder_stage(model, device)
    return _unet_stage(model, samples, config, device)


def _autoencoder_stage(model: StableDiffusion, device: str) -> _Stage:
    vae = model.vae.to(device)

    def losses(batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        pixels = torch.from_numpy(batch.pixels).to(device)
        h, w = (side // model.downscale for side in pixels.shape[-2:])
        shape = (len(pixels), vae.config.latent_channels, h, w)
        return autoencoder(vae, pixels, torch.randn(shape, generator=generator).to(device))

    def unit_scale(crops: Crops) -> None:
        """Set the scaling factor so that latents have unit variance, as latent diffusion does."""
        vae.register_to_config(scaling_factor=1.0)
        pixels = torch.from_numpy(crops.batch(0, 64).pixels).to(device)
        vae.register_to_config(scaling_factor=float(1 / model.encode(pixels).std()))

    return _Stage(vae, losses, unit_scale)


def _unet_stage(
    model: StableDiffusion, samples: Sequence[Sample], config: TrainConfig, device: str
) -> _Stage:
    net = MaskedUNet(model.unet.to(device))
    model.vae.to(device)
    kinds = sorted({s.kind for s in samples} - {GOOD})
    texts = [config.background_prompt, config.masked_prompt, *kinds]
    embeddings = model.encode_prompts(texts)[0].to(device)
    index = {GOOD: 1, **{kind: i for i, kind in enumerate(texts[2:], start=2)}}
    alphas = torch.tensor(model.noise_schedule.alphas_cumprod, dtype=torch.float32, device=device)
    objective = {"denoise": denoise, "disentangle": disentangle}[config.objective]

    def losses(batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        z0 = model.encode(torch.from_numpy(batch.pixels).to(device), generator)
        rows = len(z0)
        noise = torch.randn(z0.shape, generator=generator).to(device)
        timestep = torch.randint(len(alphas), (rows,), generator=generator).to(device)
        prompts = PromptEmbeddings(
            defect=embeddings[[index[kind] for kind in batch.kinds]],
            background=embeddings[[0] * rows],
            masked=embeddings[[1] * rows],
        )
        return objective(
            net,
            z0,
            _latent_mask(batch, model.downscale).to(device),
            noise,
            timestep,
            alphas,
            prompts,
            prediction_type=model.prediction_type,
            by_area=config.matching_by_area,
        )

    return _Stage(model.unet, losses)


def _latent_mask(batch: Batch, downscale: int) -> Tensor:
    """A latent pixel is masked if any picture pixel under it is."""
    return nn.functional.max_pool2d(torch.from_numpy(batch.mask), downscale)


def _step(
    state: State, stage: _Stage, crops: Crops, config: TrainConfig, device: str
) -> dict[str, float]:
    """One optimisation step; all randomness is a function of (seed, step)."""
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + state.step)
    batch = crops.batch(state.step, config.batch)
    bf16 = config.precision == "bfloat16"
    with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bf16):
        terms = stage.losses(batch, generator)
    loss = torch.stack(list(terms.values())).sum()
    if not torch.isfinite(loss):
        raise TrainingError(
            f"the loss is {loss.item()} at step {state.step}; the last checkpoint is whole. "
            "Lower --learning-rate, or use --precision float32, and continue with --resume"
        )
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(state.module.parameters(), 1.0)
    for group in state.optimizer.param_groups:
        group["lr"] = config.learning_rate * min(1.0, (state.step + 1) / (config.warmup + 1))
    state.optimizer.step()
    state.step += 1
    state.ema.update(state.module, state.step)
    return {name: value.item() for name, value in terms.items()}


def _optimizer(module: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    module.requires_grad_(True).train()
    return torch.optim.AdamW(
        module.parameters(), config.learning_rate, weight_decay=config.weight_decay, foreach=True
    )


def _fit(model: StableDiffusion, config: TrainConfig) -> None:
    """The window has to divide through the VAE and every level of the U-Net."""
    factor = model.downscale * 2 ** (len(model.unet.config.block_out_channels) - 1)
    if config.window % factor or config.window <= 0:
        raise InputError(
            f"a window of {config.window} px does not divide by {factor}, which this model "
            f"needs; take {max(1, round(config.window / factor)) * factor}"
        )


def _record(config: TrainConfig, samples: Sequence[Sample], base_model: str) -> dict[str, Any]:
    kinds = sorted({s.kind for s in samples} - {GOOD})
    return {
        "defectrt": __version__,
        "torch": torch.__version__,
        "base_model": base_model,
        "image_size": config.window,
        "config": asdict(config),
        "prompts": [
            {"role": "background", "name": "background", "text": config.background_prompt},
            {"role": "masked", "name": "masked", "text": config.masked_prompt},
            *({"role": "defect", "name": kind, "text": kind} for kind in kinds),
        ],
        "dataset": [{"name": f"{s.kind}/{s.path.name}", "sha256": s.sha256()} for s in samples],
    }


def _open_run(run: Path, record: dict[str, Any], resume: bool) -> None:
    path = run / "run.json"
    try:
        if path.exists():
            _continue_run(path, record, resume)
            return
        run.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record, indent=2) + "\n")
    except OSError as error:
        raise OutputError(f"{run}: the run cannot be written here: {error}") from error


def _continue_run(path: Path, record: dict[str, Any], resume: bool) -> None:
    if not resume:
        raise InputError(f"{path.parent}: holds a run already; add --resume, or another --out")
    before = json.loads(path.read_text())
    was, now = before["config"], record["config"]
    changed = [
        f"{k}: {was.get(k)} -> {now[k]}" for k in now if k != "steps" and was.get(k) != now[k]
    ]
    if before["dataset"] != record["dataset"]:
        changed.append("the training pictures are not the same")
    if changed:
        raise InputError(f"{path.parent}: the run was started otherwise: " + "; ".join(changed))


class _Log:
    """``log.jsonl``: one line every ten steps with the mean losses and the speed."""

    def __init__(self, path: Path, step: int, every: int = 10) -> None:
        self._path, self._every = path, every
        self._start, self._done, self._terms = monotonic(), 0, dict[str, float]()
        self._drop_after(step)

    def _drop_after(self, step: int) -> None:
        """Forget lines of steps that a resumed run is going to repeat."""
        if self._path.exists():
            lines = self._path.read_text().splitlines(keepends=True)
            kept = [line for line in lines if json.loads(line)["step"] <= step]
            partial = self._path.with_suffix(".partial")
            partial.write_text("".join(kept))
            partial.replace(self._path)

    def add(self, step: int, losses: dict[str, float], rows: int) -> float:
        """Take the losses of ``step``; returns crops/s since the start."""
        self._done += 1
        for name, value in losses.items():
            self._terms[name] = self._terms.get(name, 0.0) + value / self._every
        speed = self._done * rows / max(monotonic() - self._start, 1e-9)
        if step % self._every == 0:
            line = {"step": step, **self._terms, "crops_per_s": round(speed, 3)}
            with self._path.open("a") as file:
                file.write(json.dumps(line) + "\n")
            self._terms.clear()
        return speed


@contextmanager
def _interrupt() -> Iterator[threading.Event]:
    """An event that Ctrl-C sets, so that the step at hand is finished first."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.signal(signal.SIGINT, lambda *_: stop.set())
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
