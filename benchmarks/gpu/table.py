"""The fifth stage: `benchmarks/gpu_table.py`, line by line, each once in all calls."""

from __future__ import annotations

import gpu_table

from .stage import Context

TOY = ["--cpu", "--small", "--steps", "2", "--repeats", "2"]


def run(context: Context) -> None:
    """A row a line, with what the numbers depend on in each."""
    arguments = gpu_table.parser().parse_args(TOY if context.toy else [])
    bench = gpu_table.open_bench(arguments)
    gpu_table.autoencoder(bench)
    head = gpu_table.conditions(bench)
    buckets, compiled = ([1, 2], [2]) if context.toy else ([16, 32, 4], [16])

    def take(key: str, figures: gpu_table.Figures) -> None:
        context.results.take(key, lambda: figures() | {"bench": head})

    context.results.take("conditions", lambda: head)
    gpu_table.every_line(bench, gpu_table.contenders(bench, buckets, compiled), take)
