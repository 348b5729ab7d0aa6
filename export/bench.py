"""The scheduler against the plain loop, on the same weights, in turns.

The plain loop is what one writes first: diffusers, one image at a time, both branches of Eq. 9
in one batch of two. It must give the engine's image before anything is timed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import cast

import numpy as np
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler
from torch import Tensor

from defectrt.config.synthesis import Background, Share, SynthesisConfig
from defectrt.diffusion.noise import normal
from defectrt.diffusion.seeds import sample_seed
from defectrt.engines.engine import Engine
from defectrt.engines.loading import load_engine
from defectrt.errors import EngineError, UsageError
from defectrt.images.compositing import composite, feather
from defectrt.images.png import encode_png
from defectrt.images.types import Bits, Mask
from defectrt.images.window import from_model, to_model
from defectrt.masks.resizing import latent_mask
from defectrt.progress import Progress
from defectrt.synthesis.pipeline import Pipeline, SourceImage
from defectrt.synthesis.scheduler import Call, Scheduler, Task, Work
from defectrt.training.models.stable_diffusion import (
    SIZES,
    MaskedUNet,
    StableDiffusion,
    new_model,
    open_model,
)

from .build import build
from .config import STEPS

__all__ = ["Report", "Way", "bench"]

#: Grey levels by which the plain loop's image may differ from the engine's.
_LEVELS = 1
#: The plain loop; the same evaluations as the engine does them; two thirds of them; what an engine
#: does unless told otherwise: `STEPS` of second order, on a noised background.
_WAYS = ("plain loop", "dual", "replay", "default")


@dataclass
class Way:
    """One way of making the images, over all rounds.

    seconds  a round
    rows     evaluations of the U-Net in a round, without padding
    padding  evaluations in a round that only filled up a batch
    stages   busy seconds by stage in a round, added over the threads
    """

    seconds: list[float] = field(default_factory=list)
    rows: int = 0
    padding: int = 0
    stages: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """What was measured; ``ways`` by name, ``difference`` in grey levels."""

    images: int
    steps: int
    batch_size: int
    threads: int
    provider: str
    window: int
    parameters: int
    difference: int
    ways: dict[str, Way]

    def images_per_second(self, way: str) -> float:
        """The median of the rounds."""
        return self.images / median(self.ways[way].seconds)

    def speedup(self, way: str) -> float:
        """Over the plain loop of the same round; the median of the rounds."""
        plain, ours = (self.ways[name].seconds for name in ("plain loop", way))
        return median(a / b for a, b in zip(plain, ours, strict=True))

    def shares(self, way: str) -> dict[str, float]:
        """Share of the threads' time by stage, and what was idle, or the plain loop's own."""
        total = median(self.ways[way].seconds) * self.threads
        shares = {name: seconds / total for name, seconds in self.ways[way].stages.items()}
        return shares | {"idle": max(0.0, 1 - sum(shares.values()))}

    def table(self) -> str:
        """For eyes."""
        lines = [
            f"{self.parameters / 1e6:.1f} M parameters, window {self.window} px, "
            f"{self.steps} steps each way, {self.images} images a round, "
            f"batch size {self.batch_size}, "
            f"{self.threads} threads, engine on {self.provider}; "
            f"images within {self.difference} grey levels",
            f"{'':12}{'images/s':>12}{'rows/s':>10}{'× plain':>10}",
        ]
        for name, way in self.ways.items():
            rate = self.images_per_second(name)
            rows = rate * way.rows / self.images
            lines.append(f"{name:12}{rate:12.3f}{rows:10.1f}{self.speedup(name):10.2f}")
        for name in self.ways:
            if name != "plain loop":
                shares = sorted(self.shares(name).items(), key=lambda item: -item[1])
                text = ", ".join(f"{stage} {share:.1%}" for stage, share in shares)
                lines.append(f"{name}: {text}; {self.ways[name].padding} rows of padding")
        return "\n".join(lines)


def bench(
    run: Path | None,
    *,
    size: str = "small",
    images: int = 8,
    steps: int = 10,
    rounds: int = 3,
    batch_size: int = 4,
    threads: int = 1,
    provider: str | None = None,
    quiet: bool = False,
) -> Report:
    """Time the model of a training run, or one of random weights, which take as long.

    ``provider`` is what the engine runs on; the plain loop stays on the CPU. Raises `EngineError`
    if the plain loop and the engine do not give the same image.
    """
    torch.set_num_threads(threads)
    with TemporaryDirectory() as folder:
        run = run or _random_run(size, Path(folder) / "run")
        # as the plain loop steps and inverts
        out = Path(folder) / "engine"
        build(run, out, steps=(steps,), solver="ddim", convention="diffusers", quiet=True)
        calls = max(1, min(threads, images // batch_size))
        with (
            load_engine(out, threads=threads, calls=calls, provider=provider) as engine,
            torch.inference_mode(),
        ):
            model = open_model(run / "model")
            goods = list(_goods(images, engine.manifest.image.height))
            plain = PlainLoop(model, engine, steps)
            difference = _difference(plain, engine, *goods[0])
            ways = {name: Way() for name in _WAYS}
            with Progress(rounds * len(ways), "bench", quiet=quiet) as progress:
                for n in range(rounds):
                    for i, (name, way) in enumerate(ways.items()):
                        if name == "plain loop":
                            _time_plain(way, plain, goods)
                        else:
                            _time_ours(
                                way, engine, _pipeline(engine, model, name), batch_size, goods
                            )
                        progress.update(n * len(ways) + i + 1, way=name)
            return Report(
                images=images,
                steps=steps,
                batch_size=batch_size,
                threads=threads,
                provider=engine.provider,
                window=engine.manifest.image.height,
                parameters=sum(p.numel() for p in model.unet.parameters()),
                difference=difference,
                ways=ways,
            )


class PlainLoop:
    """Eqs. 8 and 9 with diffusers' schedulers and PyTorch, one image at a time, dual branch."""

    def __init__(self, model: StableDiffusion, engine: Engine, steps: int) -> None:
        """Prompts are those of the engine."""
        self.model, self._net = model, MaskedUNet(model.unet)
        manifest = engine.manifest
        self._size = manifest.latent.height, manifest.latent.width
        self._window = manifest.image.height
        texts = [prompt.text for prompt in manifest.prompts]
        embeddings = model.encode_prompts(texts)[0]
        indices = manifest.prompt_indices(manifest.defect_types[0])
        self._defect, self._background, self._masked = (embeddings[i : i + 1] for i in indices)
        self._up = DDIMInverseScheduler.from_config(model.scheduler)
        self._down = DDIMScheduler.from_config(model.scheduler)
        self._up.set_timesteps(steps)
        self._down.set_timesteps(steps)

    def __call__(self, image: Bits, mask: Mask, seed: int) -> tuple[Bits, int]:
        """The image with a defect, and how often the U-Net was evaluated."""
        pixels = torch.from_numpy(to_model(image, self._window))[None]
        m = torch.from_numpy(latent_mask(mask, *self._size))[None]
        z0 = self.model.encode(pixels)
        z = (1 - m) * z0
        for t in self._up.timesteps:
            epsilon = self._epsilon(z, t, m, self._masked)
            z = (1 - m) * self._up.step(epsilon, t, z).prev_sample
        star = z + m * torch.from_numpy(normal(seed, 0, 0, tuple(z0.shape)))
        both = torch.cat([self._masked, self._defect])
        for t in self._down.timesteps:
            epsilons = self._epsilon(torch.cat([z, star]), t, torch.cat([m, m]), both).chunk(2)
            z = (1 - m) * self._down.step(epsilons[0], t, z).prev_sample
            star = m * self._down.step(epsilons[1], t, star).prev_sample + z
        before, after = (self.model.decode(x)[0].numpy() for x in (z0, star))
        side = mask.shape[0]
        change = from_model(after, side) - from_model(before, side)
        evaluations = len(self._up.timesteps) + 2 * len(self._down.timesteps)
        return composite(image, change, feather(mask, 2.0, 4.0)), evaluations

    def _epsilon(self, z: Tensor, t: Tensor, m: Tensor, inside: Tensor) -> Tensor:
        outside = self._background.expand(len(z), -1, -1)
        return self._net(z, t.expand(len(z)), m, inside, outside)


def _goods(count: int, side: int) -> Iterator[tuple[Bits, Mask]]:
    """Grain of one window and a defect in its middle; what they show takes no more or less time."""
    rng = np.random.default_rng(0)
    mask = np.zeros((side, side), bool)
    mask[side * 3 // 8 : side * 5 // 8, side // 3 : side * 2 // 3] = True
    for _ in range(count):
        grain = rng.normal(150, 12, (side, side, 3)).clip(0, 255)
        yield grain.astype(np.uint8), mask


def _difference(plain: PlainLoop, engine: Engine, image: Bits, mask: Mask) -> int:
    """Grey levels between the plain loop's image and the engine's, which may be one apart."""
    pipeline = _pipeline(engine, plain.model, "dual")
    theirs, _ = plain(image, mask, sample_seed(pipeline.config.seed, "0", 0))
    (task,) = Scheduler(engine, batch_size=1).run([Task(_image(pipeline, 0, image, mask))])
    difference = int(np.abs(task.result().astype(int) - theirs).max())
    if difference > _LEVELS:
        raise EngineError(
            f"the plain loop's image is {difference} grey levels from the engine's, so there is "
            "nothing to compare"
        )
    return difference


def _pipeline(engine: Engine, model: StableDiffusion, way: str) -> Pipeline:
    """One of the ways; every result counts, whatever random weights make of it."""
    config = SynthesisConfig(
        defect=(Share(engine.manifest.defect_types[0]),),
        background="noised" if way == "default" else cast("Background", way),
        refine="none",
        retries=0,
    )
    pipeline = Pipeline(engine, config)
    if way == "default":
        pipeline.schedule = model.noise_schedule.tables(STEPS[0], solver="dpmsolver++")
    return pipeline


def _image(pipeline: Pipeline, number: int, image: Bits, mask: Mask) -> Work[Bits]:
    sample = yield from pipeline.sample(SourceImage(str(number), image), 0, [mask])
    yield Call("write", lambda: encode_png(sample.image))
    return sample.image


def _time_plain(way: Way, plain: PlainLoop, goods: Sequence[tuple[Bits, Mask]]) -> None:
    start, way.rows = perf_counter(), 0
    for i, (image, mask) in enumerate(goods):
        made, rows = plain(image, mask, i)
        encode_png(made)
        way.rows += rows
    way.seconds.append(perf_counter() - start)


def _time_ours(
    way: Way,
    engine: Engine,
    pipeline: Pipeline,
    batch_size: int,
    goods: Sequence[tuple[Bits, Mask]],
) -> None:
    scheduler = Scheduler(engine, batch_size=batch_size)
    start = perf_counter()
    for task in scheduler.run(Task(_image(pipeline, i, *good)) for i, good in enumerate(goods)):
        task.result()
    way.seconds.append(perf_counter() - start)
    stats = scheduler.stats
    way.rows, way.padding, way.stages = stats.rows, stats.padding, dict(stats.seconds)


def _random_run(size: str, directory: Path) -> Path:
    """What a training of one type of defect leaves, with weights as they were drawn."""
    if size not in SIZES:
        raise UsageError(f"size {size!r}: one of {', '.join(SIZES)}")
    model = new_model(SIZES[size])
    model.save(directory / "model")
    roles = (("background", "good surface"), ("masked", ""), ("defect", "spot"))
    prompts = [{"role": r, "name": r, "text": text} for r, text in roles]
    record = {"image_size": SIZES[size].window, "prompts": prompts}
    (directory / "run.json").write_text(json.dumps(record))
    return directory
