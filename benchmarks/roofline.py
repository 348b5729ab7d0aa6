"""What a picture must compute and move at least, and what fusing an operator saves at most.

    python benchmarks/roofline.py                       the tables, as Markdown
    python benchmarks/roofline.py --csv FILE            every card, workload and layer

SD 1.5's U-Net and autoencoder run on tensors without memory; hooks count every layer. A layer's
time is the largest of its FLOPs over the peak, its bytes over the bandwidth and its exponentials
over their rate; nothing overlaps, nothing waits. So the figures are PREDICTIONS, and optimistic
ones: no cache helps, no launch costs anything. A product of n pairs is 2n FLOPs.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
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
SD15_VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "sample_size": 512,
}
TOKENS = 77
#: Bytes of a number.
SIZE = 2
#: Queries of the largest level whose attention map is taken (Eq. 13), 16 x 16.
LARGEST_MAP = 256


@dataclass(frozen=True)
class Card:
    """What a card can do a second, at most.

    tflops     16-bit products that are summed in float32, dense
    bandwidth  TB of its memory
    exps       10¹² exponentials: 16 a clock and multiprocessor (CUDA's programming guide, table of
               arithmetic instructions), at the boost clock
    """

    name: str
    tflops: float
    bandwidth: float
    exps: float

    def seconds(self, flops: float, moved: float, exps: float = 0) -> float:
        """The roofline's time of one kernel."""
        each = flops / self.tflops, moved / self.bandwidth, exps / self.exps
        return max(each) / 1e12


#: NVIDIA's data sheets of H100 and L4, its white paper on Ada (appendix A) for the RTX 4090. The
#: H100's exponentials as in FlashAttention-3 (arXiv 2407.08608).
CARDS = (
    Card("H100 SXM", 989, 3.35, 3.9),
    Card("H100 PCIe", 756, 2.0, 3.2),
    Card("L4", 121, 0.30, 1.9),
    Card("RTX 4090", 165, 1.008, 5.2),
)
#: An H100 SXM, with what a large 16-bit product reached on one.
H100 = Card("H100 SXM, products as measured", 798, 3.35, 3.9)


@dataclass(frozen=True)
class Layer:
    """One layer of one evaluation: what a row costs, and bytes that any batch moves once."""

    kind: str
    flops: int
    moved: int
    weights: int = 0
    exps: int = 0

    def seconds(self, rows: int, card: Card) -> float:
        """Roofline time for ``rows`` rows."""
        return card.seconds(rows * self.flops, rows * self.moved + self.weights, rows * self.exps)


@dataclass(frozen=True)
class Fusion:
    """The kernels that a layer takes in one form and in another, for one row."""

    name: str
    library: tuple[Layer, ...]
    fused: tuple[Layer, ...]

    def saved(self, rows: int, card: Card) -> float:
        """Seconds, at most."""
        before, after = (
            sum(x.seconds(rows, card) for x in form) for form in (self.library, self.fused)
        )
        return before - after


@dataclass
class Count:
    """All layers of one evaluation, and what could be fused in them."""

    layers: list[Layer] = field(default_factory=list)
    fusions: list[Fusion] = field(default_factory=list)

    def add(self, kind: str, flops: int, moved: int, weights: int = 0, exps: int = 0) -> None:
        self.layers.append(Layer(kind, flops, moved, weights, exps))

    def fuse(self, name: str, library: list[Layer], fused: list[Layer]) -> None:
        self.fusions.append(Fusion(name, tuple(library), tuple(fused)))

    @property
    def flops(self) -> int:
        """FLOPs of matrix products and convolutions of one row."""
        return sum(layer.flops for layer in self.layers if is_product(layer.kind))

    def seconds(self, rows: int, card: Card) -> float:
        """Of an evaluation of ``rows`` rows."""
        return sum(layer.seconds(rows, card) for layer in self.layers)


PRODUCTS = ("convolution", "linear", "self-attention", "cross-attention")


def is_product(kind: str) -> bool:
    """Whether a kind of layer multiplies matrices."""
    return kind.partition(",")[0] in PRODUCTS


def count(config: dict[str, Any], tokens: int = TOKENS) -> Count:
    """Count one row of a U-Net in 16 bits.

    Group normalisation and its SiLU: read twice, written once, as a compiler's two kernels do.
    Layer normalisation: read and written once. GEGLU: 2F in, F out. Attention: q, k, v in, one
    out, no scores. Residuals, the time embedding and skip connections are element-wise passes.
    """
    with torch.device("meta"):
        unet = UNet2DConditionModel(**config)
        side = unet.config.sample_size
        latent = torch.empty(1, unet.config.in_channels, side, side)
        text = torch.empty(1, tokens, unet.config.cross_attention_dim)
        found = _walked(unet, lambda: unet(latent, torch.zeros(1), text))
    row_step(found, unet.config.in_channels * side * side, side * side)
    return found


def count_autoencoder(config: dict[str, Any], side: int) -> tuple[Count, Count]:
    """The same of one encoding and one decoding of a picture of ``side`` pixels."""
    with torch.device("meta"):
        vae = AutoencoderKL(**config)
        small = side >> len(config["block_out_channels"]) - 1
        pixels, latent = torch.empty(1, 3, side, side), torch.empty(1, 4, small, small)
        return _walked(vae, lambda: vae.encode(pixels)), _walked(vae, lambda: vae.decode(latent))


def _walked(module: nn.Module, run: Callable[[], object]) -> Count:
    found, handles = Count(), []
    for part in module.modules():
        hook = next((h for kind, h in _HOOKS.items() if isinstance(part, kind)), None)
        if hook:
            handles.append(
                part.register_forward_hook(
                    lambda m, args, kwargs, out, hook=hook: hook(found, m, args, kwargs, out),
                    with_kwargs=True,
                )
            )
    run()
    for handle in handles:
        handle.remove()
    return found


def _weights(module: nn.Module) -> int:
    return SIZE * sum(p.numel() for p in module.parameters(recurse=False))


def _convolution(c: Count, m: nn.Conv2d, args: Any, _: Any, out: Tensor) -> None:
    kh, kw = m.kernel_size
    moved = SIZE * (args[0].numel() + out.numel())
    c.add("convolution", 2 * out.numel() * m.in_channels * kh * kw, moved, _weights(m))
    here = c.layers[-1]
    c.fuse("convolutions channels-last", [here, Layer("transposes", 0, 2 * moved)], [here])
    c.fuse("convolutions in fp8", [here], [_eighth(here)])


def _eighth(layer: Layer) -> Layer:
    """A product of 8-bit numbers: twice the rate, half of what enters; what leaves has 16 bits."""
    return replace(layer, flops=layer.flops // 2, weights=layer.weights // 2)


def _linear(c: Count, m: nn.Linear, args: Any, _: Any, out: Tensor) -> None:
    moved = SIZE * (args[0].numel() + out.numel())
    c.add("linear", 2 * out.numel() * m.in_features, moved, _weights(m))
    c.fuse("linear layers in fp8", [c.layers[-1]], [_eighth(c.layers[-1])])


def _group_norm(c: Count, m: nn.Module, args: Any, _: Any, out: Tensor) -> None:
    c.add("group norm + SiLU", 12 * out.numel(), 3 * SIZE * out.numel())
    here = c.layers[-1]
    c.fuse("group norm in one pass", [here], [replace(here, moved=2 * SIZE * out.numel())])


def _layer_norm(c: Count, m: nn.Module, args: Any, _: Any, out: Tensor) -> None:
    c.add("layer norm", 8 * out.numel(), 2 * SIZE * out.numel())


def _geglu(c: Count, m: nn.Module, args: Any, _: Any, out: Tensor) -> None:
    product = c.layers[-1]
    c.add("GEGLU's gate", 10 * out.numel(), 3 * SIZE * out.numel())
    one = replace(product, moved=SIZE * (args[0].numel() + out.numel()))
    c.fuse("GEGLU in its product", [product, c.layers[-1]], [one])


def _attention(c: Count, m: Attention, args: Any, kwargs: Any, out: Tensor) -> None:
    text = kwargs.get("encoder_hidden_states")
    width = m.to_q.out_features
    queries = out.numel() // out.shape[1 if out.dim() == 4 else -1]
    if text is None:
        _self_attention(c, queries, width, m.heads)
    else:
        _cross_attention(c, queries, width, m.heads, text.shape[1])


#: Columns that FlashAttention-2's kernels, as PyTorch builds them, have for a head.
_FLASH = (32, 64, 96, 128, 192, 256)


def _self_attention(c: Count, n: int, width: int, heads: int) -> None:
    d, moved, exps = width // heads, 4 * SIZE * n * width, heads * n * n

    def columns(padded: int) -> Layer:
        return Layer(f"self-attention, d = {d}", 4 * heads * n * n * padded, moved, 0, exps)

    c.layers.append(columns(d))
    library = next((x for x in _FLASH if x >= d), d)
    name = f"self-attention in {_columns(d)} columns for {library}"
    if library > _columns(d):
        c.fuse(name, [columns(library)], [columns(_columns(d))])


def _columns(d: int) -> int:
    """That a kernel of ours has for a head: tensor cores multiply 16 at a time."""
    return -(-d // 16) * 16


def _cross_attention(c: Count, n: int, width: int, heads: int, tokens: int) -> None:
    """One prompt a query; and as PyTorch's attention over both prompts with a bias has it.

    That first gathers and joins keys and values (the few prompts of a batch are read once) and
    writes a bias for each pair of query and token, and takes the map, where it is wanted, in a
    product and a pass of its own.
    """
    d, rows = width // heads, SIZE * n * width
    table = 2 * SIZE * tokens * width
    c.add("cross-attention", 4 * n * width * tokens, 2 * rows, table, heads * n * tokens)
    bias, padded = SIZE * n * (-(-2 * tokens // 8) * 8), heads * next(x for x in _FLASH if x >= d)
    library = [
        Layer("gathering and joining", 0, 2 * table, 2 * table),
        Layer("the bias", 0, bias + 4 * n),
        Layer("attention", 8 * n * padded * tokens, 2 * rows + 2 * table + bias, 0,
              2 * heads * n * tokens),
    ]  # fmt: skip
    fused = Layer("one kernel", 6 * n * heads * _columns(d) * tokens, 2 * rows + 4 * n, table,
                  2 * heads * n * tokens)  # fmt: skip
    if n <= LARGEST_MAP:
        scores = SIZE * heads * n * tokens
        library += [
            Layer("scores for the map", 2 * n * width * tokens, rows + scores + table // 2),
            Layer("the map", 0, scores + 4 * n, 0, heads * n * tokens),
        ]
        fused = replace(fused, moved=fused.moved + 8 * heads * n)
    c.fuse("masked cross-attention", library, [fused])


def _residual(c: Count, m: ResnetBlock2D, args: Any, _: Any, out: Tensor) -> None:
    joined = args[0].numel() if args[0].shape[1] > out.shape[1] else 0  # up: a concatenation
    c.add("element-wise", 2 * out.numel(), SIZE * (5 * out.numel() + 2 * joined))
    taken, made = args[0].numel(), out.numel()
    norms = [Layer("norm", 0, 3 * SIZE * x) for x in (taken, made)]
    # statistics are a pass still; SiLU is computed for each of 9 places and 128 channels
    times = 9 * -(-out.shape[1] // 128)
    inside = [Layer("in a convolution", 0, SIZE * x, 0, times * x) for x in (taken, made)]
    c.fuse("group norm and SiLU in the convolution that reads them", norms, inside)


def _transformer(c: Count, m: nn.Module, args: Any, _: Any, out: Tensor) -> None:
    c.add("element-wise", 4 * out.numel(), SIZE * 3 * 4 * out.numel())
    # two of the four are followed by a layer norm, which a compiler does in the same pass
    element = SIZE * out.numel()
    c.fuse(
        "residuals added in the products before",
        [Layer("adding", 0, (2 * 4 + 2 * 3) * element)],
        [Layer("in the product, and norms", 0, (2 * 3 + 2 * 1) * element)],
    )


def row_step(c: Count, latent: int, plane: int) -> None:
    """The update of ``latent`` numbers, Eqs. 3, 4 and 9: z, ε, region and anchor in, z' out."""
    once = Layer("row step", 5 * latent, (3 * 4 + SIZE) * latent + 4 * plane)
    c.layers.append(once)
    eager = Layer("five passes", 5 * latent, (12 * 4 + SIZE) * latent + 4 * plane)
    c.fuse("row step, for PyTorch's eager form", [eager], [once])
    c.fuse("row step, for the compiler's", [once], [once])


_HOOKS: dict[type[nn.Module], Callable[..., None]] = {
    nn.Conv2d: _convolution,
    nn.Linear: _linear,
    nn.GroupNorm: _group_norm,
    nn.LayerNorm: _layer_norm,
    GEGLU: _geglu,
    Attention: _attention,
    ResnetBlock2D: _residual,
    BasicTransformerBlock: _transformer,
}


@dataclass(frozen=True)
class Workload:
    """Pictures of ``side`` pixels in so many steps, `replay`, in batches of ``rows``."""

    side: int
    steps: int
    rows: int = 16

    def __str__(self) -> str:
        """For tables."""
        return f"{self.side} px, {self.steps} steps"

    @property
    def evaluations(self) -> int:
        """Of the U-Net, a picture: inverted and generated."""
        return 2 * self.steps

    def parts(self) -> list[tuple[Count, int, float]]:
        """What is counted, rows of its batch, and rows of it that a picture needs.

        One encoding; the inverted background is decoded, too.
        """
        unet, encode, decode = _counted(self.side)
        return [(unet, self.rows, self.evaluations), (encode, 1, 1), (decode, 1, 2)]

    def seconds(self, card: Card) -> float:
        """Of a picture."""
        return sum(n * c.seconds(rows, card) / rows for c, rows, n in self.parts())

    def kinds(self, card: Card) -> dict[str, tuple[float, float, float]]:
        """Each kind of layer: FLOPs, bytes and seconds of a picture."""
        sums: dict[str, tuple[float, float, float]] = defaultdict(lambda: (0, 0, 0))
        names = (None, "encoder", "decoder, twice")
        for (c, rows, n), name in zip(self.parts(), names, strict=True):
            for x in c.layers:
                flops, moved, seconds = sums[name or x.kind]
                sums[name or x.kind] = (
                    flops + n * x.flops,
                    moved + n * (x.moved + x.weights / rows),
                    seconds + n * x.seconds(rows, card) / rows,
                )
        return dict(sums)

    def shares(self, card: Card) -> dict[str, float]:
        """What each fusion saves of a picture, at most; of the U-Net's layers."""
        (unet, rows, n), *_ = self.parts()
        sums: dict[str, float] = defaultdict(float)
        for fusion in unet.fusions:
            sums[fusion.name] += n * fusion.saved(rows, card) / rows
        return {name: saved / self.seconds(card) for name, saved in sums.items()}


WORKLOADS = (Workload(512, 50), Workload(256, 20))
#: Share of a picture from which on an operator is worth a kernel of its own.
WORTH = 0.03


@cache
def _counted(side: int) -> tuple[Count, Count, Count]:
    return (count(SD15 | {"sample_size": side // 8}), *count_autoencoder(SD15_VAE, side))


def table(c: Count, batches: list[int], card: Card) -> str:
    """An evaluation in batches of several sizes, as Markdown."""
    kinds = list(dict.fromkeys(x.kind for x in c.layers))
    lines = [
        f"PREDICTED at {card.tflops:g} TFLOP/s, {card.bandwidth:g} TB/s and {card.exps:g}·10¹² "
        "exponentials/s; milliseconds an evaluation.",
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
        cells += [f"{1e3 * sum(x.seconds(b, card) for x in mine):.3f}" for b in batches]
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    totals = {b: c.seconds(b, card) for b in batches}
    share = [f"{b * c.flops / card.tflops / totals[b] / 1e10:.0f} %" for b in batches]
    lines.append("| share of the peak | | | | " + " | ".join(share) + " |")
    rate = [f"{b / (100 * totals[b]):.1f}" for b in batches]
    lines.append("| images/s, 100 evaluations | | | | " + " | ".join(rate) + " |")
    return "\n".join(lines)


def floors() -> str:
    """What a picture takes at least on every card, and the share of each part, as Markdown."""
    kinds = list(WORKLOADS[0].kinds(CARDS[0]))
    head = [f"{card.name}, {w.side} px" for w in WORKLOADS for card in CARDS]
    columns = [(w.kinds(card), w.seconds(card)) for w in WORKLOADS for card in CARDS]
    lines = ["| share of a picture, % | " + " | ".join(head) + " |", "|---|" + "---:|" * len(head)]
    for kind in kinds:
        cells = [f"{100 * found[kind][2] / total:.1f}" for found, total in columns]
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    lines.append("| ms a picture | " + " | ".join(f"{1e3 * t:,.1f}" for _, t in columns) + " |")
    lines.append("| pictures/s | " + " | ".join(f"{1 / t:.3g}" for _, t in columns) + " |")
    return "\n".join(lines)


def savings() -> str:
    """What each fusion saves of a picture at most, on every card, as Markdown."""
    columns = [w.shares(card) for w in WORKLOADS for card in CARDS]
    head = [f"{card.name}, {w.side} px" for w in WORKLOADS for card in CARDS]
    lines = ["| saved at most, % | " + " | ".join(head) + " |", "|---|" + "---:|" * len(head)]
    for name in columns[0]:
        cells = [_marked(found[name]) for found in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _marked(share: float) -> str:
    figure = f"{100 * share:.1f}".replace("-0.0", "0.0")
    return f"**{figure}**" if share >= WORTH else figure


FIELDS = ("workload", "card", "rows", "what", "name", "TFLOP", "GB", "ms", "share")


def lines() -> Iterator[dict[str, Any]]:
    """A line for each card, workload and part of a picture or fusion; all PREDICTED."""
    for workload in WORKLOADS:
        for card in CARDS:
            head = {"workload": str(workload), "card": card.name, "rows": workload.rows}
            total = workload.seconds(card)
            for kind, (flops, moved, seconds) in workload.kinds(card).items():
                yield head | {
                    "what": "floor",
                    "name": kind,
                    "TFLOP": f"{flops / 1e12:.4f}",
                    "GB": f"{moved / 1e9:.3f}",
                    "ms": f"{1e3 * seconds:.4f}",
                    "share": f"{seconds / total:.5f}",
                }
            for name, share in workload.shares(card).items():
                yield head | {
                    "what": "saved at most",
                    "name": name,
                    "ms": f"{1e3 * share * total:.4f}",
                    "share": f"{share:.5f}",
                }


def write(path: Path) -> None:
    """All lines as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.DictWriter(file, FIELDS, lineterminator="\n")
        out.writeheader()
        out.writerows(lines())


def main() -> None:
    """Print the tables, or write the CSV."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--csv", type=Path, help="write benchmarks/results/roofline.csv there")
    arguments = parser.parse_args()
    if arguments.csv:
        write(arguments.csv)
        return
    print("\n\n".join((table(count(SD15), [1, 4, 16, 64], H100), floors(), savings())))


if __name__ == "__main__":
    main()
