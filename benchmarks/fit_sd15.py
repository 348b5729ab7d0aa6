"""Does the U-Net of Stable Diffusion 1.5 train on a machine with 24 GB? Time and peak memory.

    python benchmarks/fit_sd15.py full lora

Each variant is a whole run of the preset `sd15` or `sd15-lora`, made of one crop and a few steps
on random weights: VAE, text encoder, masks, loss, gradients, optimiser, average, checkpoint and
saved model. It runs in a process of its own, which may not hold more than 20 GB. A row goes to
results/fit_sd15.csv.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import os
import platform
import resource
import subprocess
import tempfile
from pathlib import Path
from statistics import median
from time import monotonic

LIMIT_GB = 20
RESULTS = Path(__file__).with_name("results") / "fit_sd15.csv"
#: What each variant lays over its preset; one batch a step, since more only repeat it.
VARIANTS = {
    "full": ("sd15", {"optimizer": "adafactor", "learning_rate": 1.5e-4, "accumulate": 1}),
    "full-adamw": ("sd15", {"ema": 0, "accumulate": 1}),
    "lora": ("sd15-lora", {"accumulate": 1}),
}


def sd15():
    """Stable Diffusion 1.5's shapes with random weights; the tokenizer spells in bytes."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from defectrt.training.models.stable_diffusion import SIZES, StableDiffusion, new_model

    small = new_model(SIZES["tiny"])
    unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        sample_size=512,
    )
    text = CLIPTextModel(
        CLIPTextConfig(
            hidden_size=768,
            intermediate_size=3072,
            num_hidden_layers=12,
            num_attention_heads=12,
            bos_token_id=small.tokenizer.bos_token_id,
            eos_token_id=small.tokenizer.eos_token_id,
            pad_token_id=small.tokenizer.pad_token_id,
        )
    )
    for part in (vae, text):
        part.requires_grad_(False).eval()
    return StableDiffusion(unet, vae, text, small.tokenizer, small.scheduler)


def image(folder):
    import numpy as np

    from defectrt.training.data.samples import Sample

    pixels = np.random.default_rng(0).integers(100, 156, (512, 512, 3)).astype(np.uint8)
    mask = np.zeros((512, 512), bool)
    mask[200:300, 200:300] = True
    (folder / "0.bin").write_bytes(pixels.tobytes())
    return Sample(folder / "0.bin", "hole", pixels, mask)


def measure(name, steps, connection):
    """One variant, in a process of its own: sends its row."""
    resource.setrlimit(resource.RLIMIT_DATA, (LIMIT_GB * 10**9,) * 2)
    import torch

    from defectrt.training.config import load_config
    from defectrt.training.loop import train as loop

    preset, changes = VARIANTS[name]
    seconds, step = [], loop._step

    def timed(*args):
        start = monotonic()
        losses = step(*args)
        seconds.append(monotonic() - start)
        peaks.append(peak_gb())
        return losses

    loop._step, peaks = timed, []
    with tempfile.TemporaryDirectory() as folder:
        options = {"model": "random", "out": folder, "steps": steps, **changes}
        _, config = load_config(preset, None, options)
        model = sd15()
        parameters = sum(p.numel() for p in model.unet.parameters())
        loop.train(model, [image(Path(folder))], config, Path(folder) / "run", quiet=True)
        size = sum(p.stat().st_size for p in Path(folder, "run", "checkpoints").rglob("*.*"))
    connection.send(
        {
            "variant": name,
            "preset": preset,
            "optimizer": config.optimizer,
            "ema": config.ema_decay,
            "lora": config.lora,
            "precision": config.precision,
            "gradient_checkpointing": config.gradient_checkpointing,
            "unet_parameters": parameters,
            "rows": 2 * config.batch_size,
            "window": config.window,
            "steps": steps,
            "first_step_s": round(seconds[0], 1),
            "median_step_s": round(median(seconds), 1),
            "peak_step_gb": round(peaks[-1], 2),
            "peak_run_gb": round(peak_gb(), 2),
            "checkpoint_gb": round(size / 1e9, 2),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }
    )


def peak_gb():
    """The most memory that this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def conditions(note):
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return {
        "commit": commit.stdout.strip(),
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "load": round(os.getloadavg()[0], 1),
        "note": note,
    }


def keep(row, results):
    """Add a row to a file of results, and show it."""
    new = not results.exists()
    with results.open("a", newline="") as file:
        writer = csv.DictWriter(file, row, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)
    print(row, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("variants", nargs="+", choices=VARIANTS)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--note", default="", help="what else the machine was doing")
    args = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    for name in args.variants:
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=measure, args=(name, args.steps, there))
        process.start()
        there.close()
        try:
            row = here.recv() | conditions(args.note)
        except EOFError:
            process.join()
            raise SystemExit(f"{name}: the process ended with {process.exitcode}") from None
        process.join()
        keep(row, RESULTS)


if __name__ == "__main__":
    main()
