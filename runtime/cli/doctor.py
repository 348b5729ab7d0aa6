"""``defectrt doctor``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import DefectRTError

if TYPE_CHECKING:
    pass
from .options import Trust

__all__ = ["doctor"]

_MARKS = {"ok": "ok   ", "note": "note ", "fault": "FAULT"}


def doctor(
    engine: Annotated[
        Path | None, typer.Option(help="Engine directory to test; by default the bundled one.")
    ] = None,
    trust: Trust = None,
    as_json: Annotated[bool, typer.Option("--json", help="The findings as JSON.")] = False,
) -> None:
    """Look at what is installed here and what of it works.

    Packages and extras, two builds of ONNX Runtime that are in each other's way, every provider
    on a tiny graph, the engine's files, one defect made with it, and how fast it is on every
    provider, with the one to use. Exit code 0, or 1 if something must be mended; a missing extra
    is only noted.

    Examples:

      defectrt doctor

      defectrt doctor --engine engines/hole --json
    """
    from ..doctor import examine

    findings = []
    for finding in examine(engine, trust):
        findings.append(finding)
        if not as_json:
            typer.echo(f"{_MARKS[finding.level]}  {finding.topic:<12} {finding.text}")
            if finding.advice:
                typer.echo(f"{'':<20} run: {finding.advice}")
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=1))
    faults = [finding for finding in findings if finding.level == "fault"]
    if faults:
        raise DefectRTError("; ".join(f"{f.topic}: {f.text}" for f in faults))
