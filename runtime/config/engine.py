"""Which engine, and on what hardware it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from .base import Config

__all__ = ["BATCH_SIZE", "CARD_BATCH_SIZE", "EngineConfig", "Magnify", "ProviderName"]

#: Rows in the engine at once, unless said otherwise: on a CPU, and what keeps a card busy.
BATCH_SIZE, CARD_BATCH_SIZE = 4, 16
#: What an ONNX engine may run on; written out, so that a help text needs no ONNX Runtime.
ProviderName: TypeAlias = Literal["cpu", "cuda", "tensorrt", "tensorrt-rtx", "openvino", "auto"]


#: How many times larger than it is the model sees an image; fit: whole, as it fits its window.
Magnify: TypeAlias = Literal[1, 2, 4, "fit"]


class EngineConfig(Config):
    """An engine directory and how it is run."""

    engine: Annotated[
        Path | None,
        Field(description="Engine directory, made with build-engine; by default the bundled one."),
    ] = None
    batch_size: Annotated[
        int | None,
        Field(
            ge=1,
            description="Rows in the engine at once, by default 4 on a CPU and 16 on a card; "
            "results differ by rounding at most.",
        ),
    ] = None
    threads: Annotated[
        int | None, Field(ge=1, description="CPU threads; one a core by default, and no more.")
    ] = None
    provider: Annotated[
        ProviderName | None,
        Field(
            description="What an ONNX engine runs on; by default the CPU. auto: the fastest here, "
            "as doctor finds it. One that does not take the whole engine is an error."
        ),
    ] = None
    trust: Annotated[
        str | None,
        Field(
            description="Fingerprints of engines that may run though they are machine code (all "
            "but ONNX), divided by commas; `defectrt info` shows them.",
            json_schema_extra={"envvar": "DEFECTRT_TRUST"},
        ),
    ] = None
