"""The plain loop, the plain loop compiled, and our engines: one table, correctness first.

    python benchmarks/gpu_table.py                          SD 1.5's shapes, 512 px, on a GPU
    python benchmarks/gpu_table.py --cpu --small            anywhere, in some minutes
    python benchmarks/gpu_table.py --engine out/engine      a built engine too, on its own weights

Weights are random: they take the same time. Every contender does the same row step on the same
weights. Each is made when its turn comes, compared with float64 on rows in mixed phases, and must
stay within twice the plain form's error; only then is it timed. A contender that cannot be made, or
is wrong, loses its own lines only.

An image is 2·steps + steps evaluations in `dual` (the plain loop) and 2·steps in `replay` (ours),
one encoding and one decoding. images/s is computed from the median of a step and from one
measured encoding and decoding; the plain loop's is also measured whole (`loop`).
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, fields
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from gpu.conditions import commit
from roofline import SD15, SD15_VAE, TOKENS, count
from torch import Tensor, nn

from defectrt.diffusion.rows import Rows
from defectrt.engines.loading import load_engine
from defectrt.engines.manifest import read_manifest
from defectrt.engines.providers import installed, open_session, require
from defectrt.engines.signature import Array, Signature
from defectrt.export.aoti import compile_program, export_program, for_gpu
from defectrt.export.fused import fuse_geglu
from defectrt.export.graphs import Onnx
from defectrt.export.rowstep import RowStep, map_size
from defectrt.export.source import Part
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
    diffusers_logging.set_verbosity_error()
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


Step = Callable[..., tuple[Tensor, ...]]


@dataclass
class Contender:
    """One line of the table for each bucket: a name, what makes its step, evaluations an image."""

    name: str
    make: Callable[[], Step]
    evaluations: int
    buckets: list[int]
    _made: Step | Exception | None = None

    def step(self) -> Step:
        """The step, made once; raises what making it raised, each time."""
        if self._made is None:
            try:
                self._made = self.make()
            except Exception as error:
                self._made = error
        if isinstance(self._made, Exception):
            raise self._made
        return self._made

    def close(self) -> None:
        """Give its memory back."""
        self._made = None
        gc.collect()
        torch._dynamo.reset()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def row_step(bench: Bench, compiled: bool) -> RowStep:
    """Our row step in the timed precision, channels last; on a GPU with every kernel."""
    gpu = bench.device == "cuda"
    step = RowStep(bench.model, bench.embeddings, bench.content, bench.side, kernels=gpu)
    step.unet.to(bench.dtype).to(memory_format=torch.channels_last)
    if gpu or not compiled:  # for the kernel the compiler wants a GPU
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
            side.wait_stream(torch.cuda.current_stream())
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


def onnx_step(bench: Bench, provider: str) -> Step:
    """Our row step as an ONNX engine has it, on these weights, in the timed precision."""
    module = RowStep(bench.model, bench.embeddings, bench.content, bench.side).cpu()
    names = [f.name for f in fields(Rows)]

    def example(number: int) -> dict[str, Tensor]:
        return {name: x.cpu() for name, x in zip(names, bench.rows(number), strict=True)}

    rows = example(2)
    inputs = {
        name: Array(np.float32 if x.is_floating_point() else np.int64, ("B", *x.shape[1:]))
        for name, x in rows.items()
    }
    side = bench.side
    outputs = {
        "next_latent": inputs["latent"],
        "attention": Array(np.float32, ("B", 1, side, side)),
    }
    backend = Onnx("float16" if bench.dtype == torch.float16 else "float32")
    part = Part("denoiser", module, tuple(outputs), example)
    with TemporaryDirectory() as folder:
        backend.export(part, Path(folder), lambda _: None)
        path, signature = Path(folder) / "denoiser.onnx", Signature(inputs, outputs)
        threads, precision = torch.get_num_threads(), backend.precision
        session = open_session(path, require(provider), signature, threads, precision)

    def step(*given: Tensor) -> tuple[Tensor, ...]:
        feeds = {name: x.cpu().numpy() for name, x in zip(names, given, strict=True)}
        found = session.run(list(outputs), feeds)
        return tuple(torch.from_numpy(x).to(bench.device) for x in found)

    return step


def aoti_step(bench: Bench) -> Step:
    """Our row step as a compiled engine has it, on these weights, in the timed precision."""
    module = RowStep(bench.model, bench.embeddings, bench.content, bench.side)
    if bench.device == "cuda":
        module = for_gpu(module, bench.dtype).cuda()
    names = [f.name for f in fields(Rows)]
    inputs = dict(zip(names, bench.rows(3), strict=True))
    program = export_program(module, inputs, fewest=2)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "denoiser.pt2"
        compile_program(program, path, bench.device)
        del program, module
        loader = torch._C._aoti.AOTIModelPackageLoader(
            str(path), "model", bench.device == "cuda", 1, -1
        )
    return lambda *rows: tuple(loader.run(list(rows)))


def contenders(bench: Bench, buckets: list[int], compile_buckets: list[int]) -> list[Contender]:
    """The plain loop and our row step: as they are, compiled, and as engines have it.

    What takes least to make goes first, and the plain loop before ours.
    """
    on_gpu = bench.device == "cuda"
    graph = ", CUDA graph" * on_gpu
    kernels = "kernels, " * on_gpu
    ours = 2 * bench.steps
    compiled_plain = Contender(
        "plain loop, torch.compile",
        lambda: torch.compile(Plain(bench, bench.dtype)),
        3 * bench.steps,
        [1],
    )
    compiled = Contender(
        f"row step, {kernels}torch.compile{graph}",
        lambda: captured(bench, torch.compile(row_step(bench, compiled=True), dynamic=False)),
        ours,
        compile_buckets,
    )
    return [
        plain_loop(bench),
        Contender(
            f"row step, kernels{graph}",
            lambda: captured(bench, row_step(bench, compiled=False)),
            ours,
            buckets,
        ),
        Contender(
            f"row step, AOTInductor{graph}",
            lambda: captured(bench, aoti_step(bench)),
            ours,
            [n for n in buckets if n > 1] * bool(compile_buckets),
        ),
        *([compiled_plain, compiled] if compile_buckets else []),
        *(
            Contender(
                f"row step, ONNX Runtime on {provider}",
                partial(onnx_step, bench, provider),
                ours,
                buckets,
            )
            for provider in installed()
            if (provider == "cpu") == (bench.device == "cpu")
        ),
    ]


def plain_loop(bench: Bench) -> Contender:
    """Diffusers' loop as it is."""
    return Contender(
        "plain loop (diffusers, eager, dual)",
        lambda: Plain(bench, bench.dtype),
        3 * bench.steps,
        [1],
    )


class Reference:
    """What float64 gives on the distinct rows, and how far from it a contender may be.

    Twice as far as the plain form is in the timed precision, plus rounding.
    """

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    @cached_property
    @torch.no_grad()
    def exact(self) -> tuple[Tensor, ...]:
        """The outputs."""
        plain = Plain(self._bench, torch.float64)
        return plain(*(x.double() if x.is_floating_point() else x for x in self._few))

    @cached_property
    @torch.no_grad()
    def limits(self) -> list[float]:
        """Of each output."""
        plain = errors(Plain(self._bench, self._bench.dtype)(*self._few), self.exact)
        return [2 * error + torch.finfo(self._bench.dtype).eps for error in plain]

    @property
    def _few(self) -> list[Tensor]:
        return self._bench.rows(DISTINCT)


class WrongError(Exception):
    """A contender is farther from float64 than it may be; it is not timed."""


@torch.no_grad()
def entry(bench: Bench, contender: Contender, bucket: int, reference: Reference) -> dict[str, Any]:
    """One line of the table. Raises `WrongError`, or what making or running the contender does."""
    start = time.perf_counter()
    step = contender.step()
    found = errors(step(*bench.rows(bucket)), reference.exact)
    limits = reference.limits
    if not all(e <= limit for e, limit in zip(found, limits, strict=True)):
        raise WrongError(f"errors {found}, allowed {limits}")
    setting_up = time.perf_counter() - start
    row = {"contender": contender.name, "rows": bucket, "found": max(found)}
    return row | measure(bench, contender, bucket) | {"set_up_s": setting_up}


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
    """Times and memory of a line of the table."""
    rows, step = bench.rows(bucket), contender.step()
    if bench.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = timed(bench, lambda: step(*rows), bench.repeats)
    p50 = statistics.median(seconds)
    p99 = (
        statistics.quantiles(seconds, n=100, method="inclusive")[98]
        if len(seconds) > 1
        else seconds[0]
    )
    image = contender.evaluations * p50 / bucket + bench.encode + bench.decode
    return {
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
def whole_loop(bench: Bench) -> dict[str, Any]:
    """Seconds of one image through the plain loop, every evaluation run: Eqs. 8 and 9."""
    plain = Plain(bench, bench.dtype)
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
    seconds = bench.clock() - start + bench.encode + bench.decode
    return {"contender": "plain loop, one whole image", "rows": 1, "images_s": 1 / seconds}


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
    on_gpu = bench.device == "cuda"
    return {
        "commit": commit(),
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
        ("found", ".1e"),
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


def parser() -> argparse.ArgumentParser:
    """The command line's."""
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
    return parser


def main(argv: list[str] | None = None) -> int:
    """Print the table; 1 if a contender cannot be timed, 2 without a GPU."""
    arguments = parser().parse_args(argv)
    if not arguments.cpu and not torch.cuda.is_available():
        print("PyTorch finds no NVIDIA GPU here; add --cpu, and --small", file=sys.stderr)
        return 2
    bench = open_bench(arguments)
    autoencoder(bench)
    print(json.dumps(head := conditions(bench)))
    print(HEAD)
    lines: list[dict[str, Any]] = []
    refused = []

    def take(key: str, figures: Figures) -> None:
        try:
            lines.append(figures())
        except Exception as error:
            refused.append(key)
            print(f"not timed: {key}: {type(error).__name__}: {error}", file=sys.stderr)
        else:
            print(line(lines[-1]), flush=True)

    chosen = [1, 4] if arguments.cpu else [1, 16]
    compiled = chosen if arguments.compile is None else arguments.compile
    every_line(bench, contenders(bench, arguments.buckets, compiled), take)
    for directory in arguments.engine:
        lines += built(bench, directory, arguments.buckets)
        print("\n".join(line(x) for x in lines[-len(arguments.buckets) :]))
    if arguments.json:
        arguments.json.write_text("".join(json.dumps(head | x) + "\n" for x in lines))
    return int(bool(refused))


Figures = Callable[[], dict[str, Any]]
Take = Callable[[str, Figures], None]


def every_line(bench: Bench, entrants: list[Contender], take: Take) -> None:
    """Hand every line to ``take``, which calls what makes it, or does not."""
    reference = Reference(bench)
    for contender in entrants:
        for bucket in contender.buckets:
            key = f"{contender.name}, {bucket} rows"
            take(key, partial(entry, bench, contender, bucket, reference))
        contender.close()
    take("plain loop, one whole image", lambda: whole_loop(bench))


if __name__ == "__main__":
    sys.exit(main())
