"""Options that several commands share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

if TYPE_CHECKING:
    pass

__all__ = ["ProviderName", "Trust"]

#: What ``--provider`` may say; written out, so that a help text needs no ONNX Runtime.
ProviderName: TypeAlias = Literal["cpu", "cuda", "tensorrt", "tensorrt-rtx", "openvino", "auto"]


#: ``--trust``, and what a line computer sets once.
Trust: TypeAlias = Annotated[
    str | None,
    typer.Option(
        envvar="DEFECTRT_TRUST",
        help="Fingerprints of engines that may run though they are machine code (all but ONNX), "
        "divided by commas; `defectrt info` shows them.",
    ),
]
