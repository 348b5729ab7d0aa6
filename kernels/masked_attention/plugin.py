"""The kernel as TensorRT launches it from a plan: pointers alone.

All sizes but the rows are fixed in a plan, so they are compiled in, and only pointers are left. A
launcher of TensorRT knows nothing of the two pointers to scratch memory that Triton appends to
every kernel; this kernel uses none, so they are taken out of its PTX.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import torch
import triton
import triton.language as tl

from .kernel import config, masked_attention_kernel

__all__ = ["Compiled", "compile_plugin", "plugin_kernel", "without_scratch"]


@triton.jit
def plugin_kernel(
    q, k, v, inside, outside, mask, out,
    H: tl.constexpr, N: tl.constexpr, L: tl.constexpr, P: tl.constexpr, SCALE: tl.constexpr,
    D: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_L: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """q, out [B,N,H·D]; k, v [P,L,H·D]; inside, outside [B] int64; mask [B,N] float32."""
    masked_attention_kernel(
        q, k, v, inside, outside, mask, mask, out, out,
        N * H * D, H * D, L * H * D, H * D, L * H * D, H * D, H, N, L, P, SCALE,
        D, D, D, D, D0, D1, BLOCK_N, BLOCK_L, False, PRECISION,
    )  # fmt: skip


class Compiled(NamedTuple):
    """What a launch needs: grid (⌈N/tile⌉, H, B), blocks of so many threads."""

    name: str
    ptx: str
    tile: int
    threads: int
    shared: int


def constants(H: int, N: int, L: int, P: int, D: int, dtype: torch.dtype) -> dict[str, object]:
    """The kernel's compile-time arguments for H heads of D, N queries, P prompts of L tokens."""
    scale = D**-0.5 * 1.4426950408889634
    sizes = {"H": H, "N": N, "L": L, "P": P, "SCALE": scale}
    return sizes | config(D, dtype).constants()


def compile_plugin(
    H: int, N: int, L: int, P: int, D: int, dtype: torch.dtype, capability: int
) -> Compiled:
    """Compile ahead of time; needs no card."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    chosen, kind = config(D, dtype), {2: "*fp16", 4: "*fp32"}[dtype.itemsize]
    kind = "*bf16" if dtype == torch.bfloat16 else kind
    fixed = constants(H, N, L, P, D, dtype)
    pointers = dict.fromkeys(("q", "k", "v"), kind) | {"inside": "*i64", "outside": "*i64"}
    pointers |= {"mask": "*fp32", "out": kind}
    source = ASTSource(
        plugin_kernel,
        pointers | dict.fromkeys(fixed, "constexpr"),
        fixed,
        {(i,): [["tt.divisibility", 16]] for i in range(len(pointers))},
    )
    options = {"num_warps": chosen.warps, "num_stages": chosen.stages}
    with triton.knobs.compilation.scope():
        triton.knobs.compilation.disable_line_info = True  # a plan names no files of its pipeline
        compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    meta = compiled.metadata
    ptx = without_scratch(compiled.asm["ptx"], meta.name, len(pointers))
    return Compiled(meta.name, ptx, chosen.BLOCK_N, 32 * meta.num_warps, meta.shared)


def without_scratch(ptx: str, name: str, keep: int) -> str:
    """Only the first ``keep`` parameters of an entry; the others must not be used."""
    entry = re.search(rf"\.entry {name}\((.*?)\n\)", ptx, re.DOTALL)
    if entry is None:
        raise ValueError(f"the PTX has no entry {name}")
    parameters = entry.group(1).split(",\n")
    body = ptx[entry.end() :]
    for dropped in parameters[keep:]:
        symbol = dropped.split()[-1]
        if re.search(rf"\b{symbol}\b", body):
            raise ValueError(f"{name} uses {symbol}, which TensorRT would not pass")
    return ptx[: entry.start(1)] + ",\n".join(parameters[:keep]) + ptx[entry.end(1) :]
