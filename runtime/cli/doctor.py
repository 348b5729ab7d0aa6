"""``defectrt doctor``."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer

from ..config.command_line import given, with_options
from ..config.engine import EngineConfig
from ..errors import DefectRTError

__all__ = ["doctor"]

_MARKS = {"ok": "ok   ", "note": "note ", "fault": "FAULT"}


@with_options(EngineConfig, leave=("batch_size", "threads", "provider"))
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="The findings as JSON.")] = False,
    **options: Any,
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

    config = EngineConfig(**given(options, EngineConfig))
    findings = []
    for finding in examine(config.engine, config.trust, _say):
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


def _say(text: str) -> None:
    typer.echo(f"{text} …", err=True)
