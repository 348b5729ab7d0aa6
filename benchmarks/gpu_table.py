"""The plain loop, the plain loop compiled, and our engines: one table, correctness first.

    python benchmarks/gpu_table.py                          SD 1.5's shapes, 512 px, on a GPU
    python benchmarks/gpu_table.py --cpu --small            anywhere, in some minutes
    python benchmarks/gpu_table.py --engine out/engine      a built engine too, on its own weights

Weights are random: they take the same time. Every contender does the same row step on the same
weights. First each is compared with float64 on rows in mixed phases, and must stay within twice
the plain form's error; only then is it timed.

An image is 2·steps + steps evaluations in `dual` (the plain loop) and 2·steps in `replay` (ours),
one encoding and one decoding. images/s is computed from the median of a step and from one
measured encoding and decoding; the plain loop's is also measured whole (`loop`).
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from roofline import SD15, TOKENS, count
from torch import Tensor, nn

from defectrt.diffusion.rows import Rows
from defectrt.engines.loading import load_engine
from defectrt.engines.manifest import read_manifest
from defectrt.engines.providers import installed, open_session, require
from defectrt.engines.signature import Array, Signature
from defectrt.export.fused import fuse_geglu
from defectrt.export.graphs import export_graph, move_prompt_tables, save_graph
from defectrt.export.rowstep import RowStep, map_size
from defectrt.training.models.attention import Masking
from defectrt.training.models.stable_diffusion import MaskedUNet, StableDiffusion

#: Different rows that every batch is made of; float64 is computed for these.
DISTINCT = 4

SMALL = {
    "sample_size": 16,
    "cross_attention_dim": 32,
    "block_out_channels": (32, 64),
    "attention_head_dim": 4,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 1,
}
SMALL_VAE = {"block_out_channels": (16, 16), "norm_num_groups": 8}
SD15_VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "sample_size": 512,
}
SCHEDULER = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


@dataclass
class Bench:
    """What all contenders share: device, precision, weights, prompts, and what a row costs."""

    device: str
    dtype: torch.dtype
    model: StableDiffusion
    embeddings: Tensor
    content: Tensor
    flops: int
    steps: int
    repeats: int
    clock: Callable[[], float] = time.perf_counter
    peak: float = 0.0
    encode: float = 0.0
    decode: float = 0.0

    @property
    def side(self) -> int:
        """Of the attention map."""
        return map_size(self.model)

    def rows(self, number: int) -> list[Tensor]:
        """Rows in mixed phases: the same `DISTINCT` ones over and over."""
        g = torch.Generator().manual_seed(0)
        config = self.model.unet.config
        h, c = config.sample_size, config.in_channels
        mask = torch.zeros(DISTINCT, 1, h, h)
        mask[:, :, h // 4 : h // 2, h // 4 : h // 2] = 1
        turn = torch.arange(DISTINCT)
        rows = [
            torch.randn(DISTINCT, c, h, h, generator=g),
            torch.randint(1000, (DISTINCT,), generator=g),
            mask,
            turn % len(self.embeddings),
            (turn + 1) % len(self.embeddings),
            torch.rand(DISTINCT, generator=g) + 0.5,
            torch.randn(DISTINCT, generator=g),
            1 - mask,
            torch.randn(DISTINCT, c, h, h, generator=g),
        ]
        return [x[torch.arange(number) % DISTINCT].to(self.device) for x in rows]


def open_bench(arguments: argparse.Namespace) -> Bench:
    """Random weights of SD 1.5's shapes, or of small ones."""
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    config, vae = (SMALL, SMALL_VAE) if arguments.small else (SD15, SD15_VAE)
    device = "cpu" if arguments.cpu else "cuda"
    dtype = torch.float32 if arguments.cpu else torch.float16
    tokens = 8 if arguments.small else TOKENS
    with torch.device(device):
        unet = UNet2DConditionModel(**config).eval().requires_grad_(False)
        autoencoder = AutoencoderKL(**vae).eval().requires_grad_(False)
    model = StableDiffusion(unet, autoencoder, None, None, SCHEDULER)  # type: ignore[arg-type]
    content = torch.zeros(3, tokens, device=device)
    content[:, 1:4] = 1
    embeddings = torch.randn(3, tokens, config["cross_attention_dim"], device=device)
    flops = count(config, tokens).flops
    bench = Bench(
        device, dtype, model, embeddings, content, flops, arguments.steps, arguments.repeats
    )
    if arguments.own_time:
        bench.clock = time.process_time
    bench.peak = ceiling(bench)
    return bench


def ceiling(bench: Bench) -> float:
    """FLOP/s of a large matrix product in the precision that is timed."""
    n = 8192 if bench.device == "cuda" else 1024
    a = torch.randn(n, n, device=bench.device, dtype=bench.dtype)
    return 2 * n**3 / min(timed(bench, lambda: a @ a, 10))


def synchronize(bench: Bench) -> None:
    """Wait for the device."""
    if bench.device == "cuda":
        torch.cuda.synchronize()


def timed(bench: Bench, run: Callable[[], object], repeats: int, warm: int = 2) -> list[float]:
    """Seconds of each of ``repeats`` runs, device included, after warming up."""
    for _ in range(warm):
        run()
    seconds = []
    for _ in range(repeats):
        synchronize(bench)
        start = bench.clock()
        run()
        synchronize(bench)
        seconds.append(bench.clock() - start)
    return seconds


class Plain(nn.Module):
    """The row step as a plain loop has it: diffusers' U-Net on prompt embeddings, eager."""

    def __init__(self, bench: Bench, dtype: torch.dtype) -> None:
        super().__init__()
        self.unet = MaskedUNet(deepcopy(bench.model.unet).to(dtype))
        self.embeddings, self.content = bench.embeddings.to(dtype), bench.content
        self.dtype, self.side = dtype, bench.side

    def forward(self, *rows: Tensor) -> tuple[Tensor, Tensor]:
        z, t, mask, inside, outside, a, b, region, anchor = rows
        masking = Masking(mask.to(self.dtype), content=self.content[inside])
        epsilon = self.unet(
            z.to(self.dtype),
            t,
            mask,
            self.embeddings[inside],
            self.embeddings[outside],
            masking,
        ).to(anchor)
        maps = [m.to(anchor) for m in masking.maps if m.shape[-1] <= self.side]
        size = (self.side, self.side)
        maps = [nn.functional.interpolate(m, size, mode="bilinear") for m in maps]
        a, b = (x.view(-1, 1, 1, 1) for x in (a, b))
        return region * (a * z + b * epsilon) + anchor, torch.stack(maps).mean(0)


@dataclass
class Contender:
    """One line of the table for each bucket: a name, its step, and evaluations an image."""

    name: str
    step: Callable[..., tuple[Tensor, ...]]
    evaluations: int
    buckets: list[int]
    errors: dict[int, float] = field(default_factory=dict)


def row_step(bench: Bench, compiled: bool) -> RowStep:
    """Our row step in the timed precision, channels last, with the fused GEGLU."""
    step = RowStep(bench.model, bench.embeddings, bench.content, bench.side)
    step.unet.to(bench.dtype).to(memory_format=torch.channels_last)
    if bench.device == "cuda" or not compiled:  # for the kernel the compiler wants a GPU
        fuse_geglu(step.unet)
    return step


def captured(bench: Bench, step: Callable[..., Any]) -> Callable[..., Any]:
    """``step`` as one CUDA graph a bucket, on inputs that are copied in; itself on a CPU."""
    if bench.device != "cuda":
        return step
    graphs: dict[int, tuple[Any, list[Tensor], Any]] = {}

    def replay(*rows: Tensor) -> Any:
        number = len(rows[0])
        if number not in graphs:
            held = [x.clone() for x in rows]
            side = torch.cuda.Stream()
            with torch.cuda.stream(side):
                for _ in range(3):
                    step(*held)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                out = step(*held)
            graphs[number] = graph, held, out
        graph, held, out = graphs[number]
        for mine, given in zip(held, rows, strict=True):
            mine.copy_(given)
        graph.replay()
        return out

    return replay


def onnx_step(bench: Bench, provider: str) -> Callable[..., tuple[Tensor, ...]]:
    """Our row step as an ONNX engine has it, on these weights, in float32."""
    module = RowStep(bench.model, bench.embeddings, bench.content, bench.side).cpu()
    names = [f.name for f in fields(Rows)]
    rows = {name: x.cpu() for name, x in zip(names, bench.rows(2), strict=True)}
    inputs = {
        name: Array(np.float32 if x.is_floating_point() else np.int64, ("B", *x.shape[1:]))
        for name, x in rows.items()
    }
    side = bench.side
    outputs = {
        "next_latent": inputs["latent"],
        "attention": Array(np.float32, ("B", 1, side, side)),
    }
    with TemporaryDirectory() as folder:
        graph = export_graph(module, rows, list(outputs), function=True)
        move_prompt_tables(graph, Path(folder))
        save_graph(graph, Path(folder), "denoiser")
        path, signature = Path(folder) / "denoiser.onnx", Signature(inputs, outputs)
        session = open_session(path, require(provider), signature, torch.get_num_threads())

    def step(*given: Tensor) -> tuple[Tensor, ...]:
        feeds = {name: x.cpu().numpy() for name, x in zip(names, given, strict=True)}
        found = session.run(list(outputs), feeds)
        return tuple(torch.from_numpy(x).to(bench.device) for x in found)

    return step


def contenders(bench: Bench, buckets: list[int], compile_buckets: list[int]) -> list[Contender]:
    """The plain loop, also compiled; our row step, also compiled, and as an ONNX graph."""
    plain = Plain(bench, bench.dtype)
    graph = ", CUDA graph" * (bench.device == "cuda")
    eager = captured(bench, row_step(bench, compiled=False))
    found = [
        Contender("plain loop (diffusers, eager, dual)", plain, 3 * bench.steps, [1]),
        Contender(f"row step, kernels{graph}", eager, 2 * bench.steps, buckets),
    ]
    if compile_buckets:
        compiled = torch.compile(plain)
        found.insert(1, Contender("plain loop, torch.compile", compiled, 3 * bench.steps, [1]))
        ours = torch.compile(row_step(bench, compiled=True), dynamic=False)
        kernels = "kernels, " * (bench.device == "cuda")
        name = f"row step, {kernels}torch.compile{graph}"
        found.append(Contender(name, captured(bench, ours), 2 * bench.steps, compile_buckets))
    for provider in installed():
        if (provider == "cpu") == (bench.device == "cpu"):
            step = onnx_step(bench, provider)
            name = f"row step, ONNX Runtime on {provider}"
            found.append(Contender(name, step, 2 * bench.steps, buckets))
    return found


@torch.no_grad()
def check(bench: Bench, entrants: list[Contender]) -> list[str]:
    """Compare every contender in every bucket with float64; returns what is wrong, and how far.

    A contender may err twice as much as the plain form does in the timed precision, plus rounding.
    """
    few = bench.rows(DISTINCT)
    exact = Plain(bench, torch.float64)(*(x.double() if x.is_floating_point() else x for x in few))
    plain = errors(Plain(bench, bench.dtype)(*few), exact)
    limits = [2 * error + torch.finfo(bench.dtype).eps for error in plain]
    refused = []
    for contender in entrants:
        for bucket in contender.buckets:
            found = errors(contender.step(*bench.rows(bucket)), exact)
            contender.errors[bucket] = max(found)
            if not all(e <= limit for e, limit in zip(found, limits, strict=True)):
                refused.append(f"{contender.name}, {bucket} rows: errors {found}, allowed {limits}")
    return refused


def errors(outputs: tuple[Tensor, ...], exact: tuple[Tensor, ...]) -> list[float]:
    """Relative error of each output, the worst of its rows; exact holds the distinct rows."""
    found = []
    for got, e in zip(outputs, exact, strict=True):
        e = e[torch.arange(len(got), device=e.device) % DISTINCT]
        difference = (got.double() - e).flatten(1).norm(dim=1) / e.flatten(1).norm(dim=1)
        found.append(float(difference.max()))
    return found


@torch.no_grad()
def measure(bench: Bench, contender: Contender, bucket: int) -> dict[str, Any]:
    """One line of the table."""
    rows = bench.rows(bucket)
    if bench.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = timed(bench, lambda: contender.step(*rows), bench.repeats)
    p50 = statistics.median(seconds)
    p99 = (
        statistics.quantiles(seconds, n=100, method="inclusive")[98]
        if len(seconds) > 1
        else seconds[0]
    )
    image = contender.evaluations * p50 / bucket + bench.encode + bench.decode
    return {
        "contender": contender.name,
        "rows": bucket,
        "error": contender.errors[bucket],
        "p50_ms": 1e3 * p50,
        "p99_ms": 1e3 * p99,
        "images_s": 1 / image,
        "memory_MB": memory(bench),
        "of_peak": bench.flops * bucket / p50 / bench.peak,
    }


def memory(bench: Bench) -> float:
    """Peak of the device's memory, or of the process where that is the CPU, in MB."""
    if bench.device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 1e6


@torch.no_grad()
def autoencoder(bench: Bench) -> None:
    """Seconds of one encoding and one decoding, into the bench; bfloat16 on a GPU."""
    dtype = torch.bfloat16 if bench.device == "cuda" else torch.float32
    vae = deepcopy(bench.model.vae).to(dtype)
    side = bench.model.unet.config.sample_size
    pixels = torch.zeros(1, 3, side * bench.model.downscale, side * bench.model.downscale)
    latent = torch.zeros(1, bench.model.unet.config.in_channels, side, side)
    pixels, latent = (x.to(bench.device, dtype) for x in (pixels, latent))
    bench.encode = statistics.median(timed(bench, lambda: vae.encode(pixels), 3))
    bench.decode = statistics.median(timed(bench, lambda: vae.decode(latent), 3))


@torch.no_grad()
def whole_loop(bench: Bench, plain: Callable[..., tuple[Tensor, ...]]) -> float:
    """Seconds of one image through the plain loop, every evaluation run: Eqs. 8 and 9."""
    tables = bench.model.noise_schedule.tables(bench.steps)
    z, _, mask, *_ = bench.rows(1)
    zero, out = torch.zeros_like(z), 1 - mask
    defect, background, masked = (torch.tensor([i], device=bench.device) for i in range(3))

    def step(z: Tensor, row: Any, inside: Tensor, region: Tensor, anchor: Tensor) -> Tensor:
        t = torch.tensor([row.timestep], device=bench.device)
        a, b = (torch.tensor([x], device=bench.device) for x in (row.a, row.b))
        return plain(z, t, mask, inside, background, a, b, region, anchor)[0]

    synchronize(bench)
    start = bench.clock()
    kept = out * z
    for row in tables.inversion:
        kept = step(kept, row, masked, out, zero)
    new = kept + mask * torch.randn_like(z)
    for row in tables.generation:
        kept = step(kept, row, masked, out, zero)
        new = step(new, row, defect, mask, kept)
    synchronize(bench)
    return bench.clock() - start + bench.encode + bench.decode


def built(bench: Bench, directory: Path, buckets: list[int]) -> list[dict[str, Any]]:
    """Lines of an engine directory, on its own weights: speed only, its build checked it."""
    lines = []
    trust = read_manifest(directory).fingerprint
    with load_engine(directory, threads=torch.get_num_threads(), trust=trust) as engine:
        shape, image = engine.manifest.latent, engine.manifest.image
        pixels = torch.zeros(1, image.channels, image.height, image.width).numpy()
        start = bench.clock()
        engine.decode(engine.encode(pixels))
        code = bench.clock() - start
        for bucket in buckets:
            z = torch.randn(bucket, shape.channels, shape.height, shape.width).numpy()
            mask = (z[:, :1] > 0.5).astype(z.dtype)
            index = torch.zeros(bucket, dtype=torch.int64).numpy()
            one = torch.ones(bucket).numpy()
            rows = Rows(z, index + 500, mask, index, index, one, one, 1 - mask, z)
            seconds = []
            engine.step(rows)
            for _ in range(bench.repeats):
                start = bench.clock()
                engine.step(rows)
                seconds.append(bench.clock() - start)
            p50 = statistics.median(seconds)
            lines.append(
                {
                    "contender": f"engine {directory.name} ({engine.manifest.backend})",
                    "rows": bucket,
                    "p50_ms": 1e3 * p50,
                    "p99_ms": 1e3 * max(seconds),
                    "images_s": 1 / (2 * bench.steps * p50 / bucket + code),
                }
            )
    return lines


def conditions(bench: Bench) -> dict[str, Any]:
    """What the numbers depend on."""
    command = ["git", "describe", "--always", "--dirty=+"]
    root = Path(__file__).parent
    commit = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    on_gpu = bench.device == "cuda"
    return {
        "commit": commit.stdout.strip(),
        "device": torch.cuda.get_device_name() if on_gpu else platform.processor() or "CPU",
        "threads": torch.get_num_threads(),
        "clock": bench.clock.__name__,
        "torch": torch.__version__,
        "precision": str(bench.dtype)[6:],
        "latent": bench.model.unet.config.sample_size,
        "steps": bench.steps,
        "GFLOP_row": round(bench.flops / 1e9, 2),
        "peak_TFLOPs": round(bench.peak / 1e12, 3),
        "encode_ms": round(1e3 * bench.encode, 2),
        "decode_ms": round(1e3 * bench.decode, 2),
    }


def line(row: dict[str, Any]) -> str:
    """One line of the table as Markdown; a figure that was not measured stays empty."""
    cells = [row["contender"], str(row["rows"])]
    for name, form in (
        ("error", ".1e"),
        ("p50_ms", ".2f"),
        ("p99_ms", ".2f"),
        ("images_s", ".3g"),
        ("memory_MB", ",.0f"),
        ("of_peak", ".0%"),
    ):
        cells.append(format(row[name], form) if name in row else "")
    return "| " + " | ".join(cells) + " |"


HEAD = """
| contender | rows | error | p50 ms | p99 ms | images/s | memory MB | share of peak |
|---|---:|---:|---:|---:|---:|---:|---:|"""


def main(argv: list[str] | None = None) -> int:
    """Print the table; 1 if a contender is wrong, 2 without a GPU."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cpu", action="store_true", help="on the CPU, in float32")
    parser.add_argument("--small", action="store_true", help="a small network instead of SD 1.5")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=30, help="runs a line")
    parser.add_argument("--buckets", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--compile", type=int, nargs="*", default=None, metavar="ROWS")
    parser.add_argument(
        "--own-time",
        action="store_true",
        help="the process's own CPU time, where "
        "other work shares the machine; with OMP_NUM_THREADS=1",
    )
    parser.add_argument("--engine", type=Path, action="append", default=[], help="a built engine")
    parser.add_argument("--json", type=Path, help="write the lines there too")
    arguments = parser.parse_args(argv)
    if not arguments.cpu and not torch.cuda.is_available():
        print("PyTorch finds no NVIDIA GPU here; add --cpu, and --small", file=sys.stderr)
        return 2
    diffusers_logging.set_verbosity_error()
    chosen = [1, 4] if arguments.cpu else [1, 16]
    bench = open_bench(arguments)
    autoencoder(bench)
    entrants = contenders(
        bench, arguments.buckets, chosen if arguments.compile is None else arguments.compile
    )
    if refused := check(bench, entrants):
        print("not timed, because wrong:\n" + "\n".join(refused), file=sys.stderr)
        return 1
    head = conditions(bench)
    print(json.dumps(head))
    print(HEAD)
    lines = []
    for contender in entrants:
        for bucket in contender.buckets:
            lines.append(measure(bench, contender, bucket))
            print(line(lines[-1]), flush=True)
    for directory in arguments.engine:
        lines += built(bench, directory, arguments.buckets)
        print("\n".join(line(x) for x in lines[-len(arguments.buckets) :]))
    loop = whole_loop(bench, entrants[0].step)
    best = max(x["images_s"] for x in lines if x["contender"].startswith("row step"))
    print(f"\nplain loop, one whole image: {loop:.2f} s, {1 / loop:.3g} images/s (loop)")
    print(f"best row step: {best:.3g} images/s, {best * loop:.1f} times the plain loop")
    if arguments.json:
        arguments.json.write_text("".join(json.dumps(head | x) + "\n" for x in lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
