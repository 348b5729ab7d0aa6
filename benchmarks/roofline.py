"""What one evaluation of SD 1.5's U-Net must compute and move, and how long that takes at least.

    python benchmarks/roofline.py                       an H100 in 16 bits, several batch sizes
    python benchmarks/roofline.py --tflops 165 --bandwidth 1.0 --rows 1 8

The network runs on tensors without memory; hooks count every layer. A layer's time is the larger
of its FLOPs over the peak and its bytes over the bandwidth, nothing overlaps, nothing waits. So
the figures are PREDICTIONS, and optimistic ones: no cache helps, no launch costs anything.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.activations import GEGLU
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

#: Stable Diffusion 1.5's U-Net, as its configuration says (`attention_head_dim` counts heads).
SD15 = {
    "sample_size": 64,
    "cross_attention_dim": 768,
    "block_out_channels": (320, 640, 1280, 1280),
    "attention_head_dim": 8,
}
TOKENS = 77

#: An H100 SXM: what a large 16-bit matrix product reaches, and the memory's bandwidth.
H100_TFLOPS, H100_BANDWIDTH = 798.0, 3.35


@dataclass
class Layer:
    """One layer of one evaluation of B rows: FLOPs, bytes that depend on B, and weights."""

    kind: str
    flops: int
    moved: int
    weights: int = 0

    def seconds(self, rows: int, peak: float, bandwidth: float) -> float:
        """Roofline time for ``rows`` rows; the counts are for one row."""
        return max(rows * self.flops / peak, (rows * self.moved + self.weights) / bandwidth)


@dataclass
class Count:
    """All layers, and what leaves its GEGLUs, for one row."""

    layers: list[Layer] = field(default_factory=list)
    gated: int = 0  # elements that leave a GEGLU

    def add(self, kind: str, flops: int, moved: int, weights: int = 0) -> None:
        self.layers.append(Layer(kind, flops, moved, weights))

    @property
    def flops(self) -> int:
        """FLOPs of matrix products and convolutions of one row."""
        return sum(layer.flops for layer in self.layers if layer.kind in PRODUCTS)


PRODUCTS = ("convolution", "linear", "self-attention", "cross-attention")


def count(config: dict[str, Any], tokens: int = TOKENS, size: int = 2) -> Count:
    """Count one row of a U-Net; ``size`` is the bytes of a number.

    Group normalisation and its SiLU: read twice, written once, as a compiler's two kernels do.
    Layer normalisation: read and written once. GEGLU: 2F in, F out. Attention: q, k, v in, one
    out, no scores. Residuals, the time embedding and skip connections are element-wise passes.
    """
    with torch.device("meta"):
        unet = UNet2DConditionModel(**config)
    found = Count()
    hooks: dict[type[nn.Module], Callable[..., None]] = {
        nn.Conv2d: _convolution,
        nn.Linear: _linear,
        nn.GroupNorm: _group_norm,
        nn.LayerNorm: _layer_norm,
        GEGLU: _geglu,
        Attention: _attention,
        ResnetBlock2D: _residual,
        BasicTransformerBlock: _transformer,
    }
    for module in unet.modules():
        hook = next((h for kind, h in hooks.items() if isinstance(module, kind)), None)
        if hook:
            module.register_forward_hook(
                lambda m, args, kwargs, out, hook=hook: hook(found, size, m, args, kwargs, out),
                with_kwargs=True,
            )
    side = unet.config.sample_size
    latent = torch.empty(1, unet.config.in_channels, side, side, device="meta")
    text = torch.empty(1, tokens, unet.config.cross_attention_dim, device="meta")
    unet(latent, torch.zeros(1, device="meta"), text)
    return found


def _weights(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters(recurse=False))


def _convolution(c: Count, size: int, m: nn.Conv2d, args: Any, _: Any, out: Tensor) -> None:
    kh, kw = m.kernel_size
    flops = 2 * out.numel() * m.in_channels * kh * kw
    c.add("convolution", flops, size * (args[0].numel() + out.numel()), size * _weights(m))


def _linear(c: Count, size: int, m: nn.Linear, args: Any, _: Any, out: Tensor) -> None:
    moved = size * (args[0].numel() + out.numel())
    c.add("linear", 2 * out.numel() * m.in_features, moved, size * _weights(m))


def _group_norm(c: Count, size: int, m: nn.Module, args: Any, _: Any, out: Tensor) -> None:
    c.add("group norm + SiLU", 12 * out.numel(), 3 * size * out.numel())


def _layer_norm(c: Count, size: int, m: nn.Module, args: Any, _: Any, out: Tensor) -> None:
    c.add("layer norm", 8 * out.numel(), 2 * size * out.numel())


def _geglu(c: Count, size: int, m: nn.Module, args: Any, _: Any, out: Tensor) -> None:
    c.gated += out.numel()
    c.add("GEGLU's gate", 10 * out.numel(), 3 * size * out.numel())


def _attention(c: Count, size: int, m: Attention, args: Any, kwargs: Any, out: Tensor) -> None:
    rows, text = out.numel(), kwargs.get("encoder_hidden_states")
    width = out.shape[-1]
    if text is None:
        c.add("self-attention", 4 * rows * (rows // width), 4 * size * rows)
    else:
        moved, table = 2 * size * rows, 2 * size * text.shape[1] * width
        c.add("cross-attention", 4 * rows * text.shape[1], moved, table)


def _residual(c: Count, size: int, m: nn.Module, args: Any, _: Any, out: Tensor) -> None:
    joined = args[0].numel() if args[0].shape[1] > out.shape[1] else 0  # up: a concatenation
    c.add("element-wise", 2 * out.numel(), size * (5 * out.numel() + 2 * joined))


def _transformer(c: Count, size: int, m: nn.Module, args: Any, _: Any, out: Tensor) -> None:
    c.add("element-wise", 4 * out.numel(), size * 3 * 4 * out.numel())


def summary(c: Count, rows: int, peak: float, bandwidth: float) -> dict[str, float]:
    """Milliseconds of each kind of layer for an evaluation of ``rows`` rows."""
    times: dict[str, float] = defaultdict(float)
    for layer in c.layers:
        times[layer.kind] += 1e3 * layer.seconds(rows, peak, bandwidth)
    return dict(times)


def table(c: Count, batches: list[int], tflops: float, terabytes: float) -> str:
    """The whole prediction as Markdown."""
    peak, bandwidth = tflops * 1e12, terabytes * 1e12
    kinds = sorted({x.kind for x in c.layers}, key=[x.kind for x in c.layers].index)
    times = {b: summary(c, b, peak, bandwidth) for b in batches}
    lines = [
        f"PREDICTED at {tflops:g} TFLOP/s and {terabytes:g} TB/s; milliseconds an evaluation.",
        "",
        "| layers | GFLOP/row | MB/row | MB weights | "
        + " | ".join(f"{b} row{'s' * (b > 1)}" for b in batches)
        + " |",
        "|---|" + "---:|" * (3 + len(batches)),
    ]
    for kind in [*kinds, "all"]:
        mine = [x for x in c.layers if kind in (x.kind, "all")]
        sums = [sum(x.flops for x in mine) / 1e9, sum(x.moved for x in mine) / 1e6]
        sums.append(sum(x.weights for x in mine) / 1e6)
        cells = [f"{x:,.1f}" for x in sums]
        cells += [
            f"{sum(times[b].values()) if kind == 'all' else times[b][kind]:.3f}" for b in batches
        ]
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    totals = {b: sum(times[b].values()) for b in batches}
    share = [f"{100 * 1e3 * b * c.flops / peak / totals[b]:.0f} %" for b in batches]
    lines.append("| share of the peak | | | | " + " | ".join(share) + " |")
    rate = [f"{1e3 * b / (100 * totals[b]):.1f}" for b in batches]
    lines.append("| images/s, 100 evaluations | | | | " + " | ".join(rate) + " |")
    return "\n".join(lines)


def operators(c: Count, terabytes: float) -> str:
    """What the fused GEGLU saves, a row, in 16 bits, as Markdown."""
    forms = [
        ("GEGLU, beside its inputs", "PyTorch eager: product, gelu, product", 14 * c.gated),
        ("GEGLU, beside its inputs", "a compiler: product, then the gate", 10 * c.gated),
        ("GEGLU, beside its inputs", "`geglu`: the gate inside the product", 2 * c.gated),
    ]
    lines = ["| operator | form | MB/row | µs/row |", "|---|---|---:|---:|"]
    for name, form, moved in forms:
        lines.append(f"| {name} | {form} | {moved / 1e6:.0f} | {moved / terabytes / 1e6:.0f} |")
    return "\n".join(lines)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tflops", type=float, default=H100_TFLOPS, help="16-bit TFLOP/s")
    parser.add_argument("--bandwidth", type=float, default=H100_BANDWIDTH, help="TB/s")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 4, 16, 64])
    arguments = parser.parse_args()
    counted = count(SD15)
    print(table(counted, arguments.rows, arguments.tflops, arguments.bandwidth))
    print()
    print(operators(counted, arguments.bandwidth))


if __name__ == "__main__":
    main()
