"""The second stage: every case of every kernel against float64, in the tests' own error budget."""

from __future__ import annotations

from functools import partial
from typing import Any

from defectrt.kernels.case import Case, budget
from kernels import OPERATORS, modules

from .stage import Context

#: Of every operator, in a rehearsal.
_TOY_CASES = 2


def run(context: Context) -> None:
    """A row a case; one outside its budget is an error."""
    for operator in OPERATORS:
        cases, kernel = modules(operator)
        chosen = cases.CASES[:_TOY_CASES] if context.toy else (*cases.CASES, *cases.SIZES)
        for case in chosen:
            key = f"{operator} {case}"
            context.results.take(key, partial(checked, case, kernel, context.device))


def checked(case: Case, kernel: Any, device: str) -> dict[str, Any]:
    """The case's two errors and what is allowed."""
    found = budget(case, kernel, device)
    row = {"found": found.fast, "plain": found.plain, "limit": found.limit}
    return row if found.holds else row | {"error": "outside its budget"}
