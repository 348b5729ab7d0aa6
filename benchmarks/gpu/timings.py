"""The fourth stage: every kernel, and what libraries do in two ways, at Stable Diffusion's sizes.

Each beside its floor and the compiler, in float16, the most valuable first. What that means for a
picture is said at the end of a call, see `gpu.verdicts`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

import kernels

from .libraries import comparisons
from .stage import Context
from .verdicts import PICTURE, picture


def run(context: Context) -> None:
    """A row a case, with the card's own ceilings in it."""
    clock = kernels.Clock(context.device, repeats=2 if context.toy else 50)
    found = kernels.ceilings(clock, small=context.toy)
    context.results.take(PICTURE, lambda: picture(*found))
    for operator in kernels.OPERATORS:
        cases, _ = kernels.modules(operator)
        sizes = [case for case in cases.SIZES if case.dtype != torch.bfloat16]
        for case in cases.CASES[:1] if context.toy else sizes:
            row = partial(timed, operator, case, clock, found)
            context.results.take(f"{operator} {case}", row)
    for comparison in comparisons(toy=context.toy):
        context.results.take(str(comparison), partial(comparison.times, clock, found[0]))


def timed(operator: str, case: Any, clock: Any, found: tuple[float, float]) -> dict[str, Any]:
    """Times and floor; an error where the case is outside its budget."""
    row = kernels.row(operator, case, clock, found, timing=True)
    if row.pop("refused"):
        row["error"] = f"outside its budget: {row['found']:.2e} of {row['limit']:.2e}"
    if clock.device == "cuda":
        torch.cuda.empty_cache()
    return row
