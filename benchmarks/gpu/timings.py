"""The fourth stage: every kernel at Stable Diffusion's sizes beside its floor and the compiler."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

import kernels

from .stage import Context


def run(context: Context) -> None:
    """A row a case, with the card's own ceilings in it."""
    clock = kernels.Clock(context.device, repeats=2 if context.toy else 50)
    found = kernels.ceilings(clock, small=context.toy)
    for operator in kernels.OPERATORS:
        cases, _ = kernels.modules(operator)
        for case in cases.CASES[:1] if context.toy else cases.SIZES:
            row = partial(timed, operator, case, clock, found)
            context.results.take(f"{operator} {case}", row)


def timed(operator: str, case: Any, clock: Any, found: tuple[float, float]) -> dict[str, Any]:
    """Times and floor; an error where the case is outside its budget."""
    row = kernels.row(operator, case, clock, found, timing=True)
    if row.pop("refused"):
        row["error"] = f"outside its budget: {row['found']:.2e} of {row['limit']:.2e}"
    if clock.device == "cuda":
        torch.cuda.empty_cache()
    return row
