"""What figures of pictures are taken of, and how."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field

from defectrt.config.base import Config, parts

from ..data.options import Group, Near, Seed

__all__ = ["PicturesConfig"]

#: `networks.opening.DEFAULT`, which would bring in torch just for a help text.
_DEFAULT = "efficientnet-lite0"


class PicturesConfig(Config):
    """How made defects are compared with real ones; the options of ``defectrt evaluate``."""

    real: Annotated[
        tuple[Path, ...],
        Field(
            min_length=1,
            description="Real defects with masks that nothing was learned from; repeat to add "
            "more. Of a RUN, one dataset with images that it has not seen.",
            json_schema_extra={"metavar": "DIR"},
        ),
    ]
    training: Annotated[
        tuple[Path, ...],
        Field(
            description="Real defects that the made ones were learned from: how near the made ones "
            "are to them is told beside every figure.",
            json_schema_extra={"metavar": "DIR"},
        ),
    ] = ()
    engine: Annotated[
        tuple[Path, ...],
        Field(
            description="The engine that made them: those of --real that it has learned from "
            "count as --training.",
            json_schema_extra={"metavar": "DIR"},
        ),
    ] = ()
    same: Annotated[
        dict[str, str],
        Field(
            description="A type that has another name among the real ones, as in hole=MT_Blowhole.",
            json_schema_extra={"metavar": "MADE=REAL"},
        ),
    ] = Field(default_factory=dict)
    network: Annotated[
        tuple[str, ...],
        BeforeValidator(parts),
        Field(
            min_length=1,
            description="What sees the pictures: efficientnet-lite0, inception=FILE, alexnet=FILE, "
            "onnx=FILE; figures of different networks cannot be compared.",
            json_schema_extra={"metavar": "NAME[=FILE]"},
        ),
    ] = (_DEFAULT,)
    window: Annotated[
        int | None,
        Field(
            ge=16,
            description="Side in px of what is seen of a picture around its defect; by default "
            "what nine of ten real ones fit into.",
        ),
    ] = None
    most: Annotated[
        int, Field(ge=2, description="Pictures of each type that are looked at, evenly spread.")
    ] = 200
    layout: Annotated[
        str | None,
        Field(
            description="How --real and --training are laid out, recognised if left out.",
            json_schema_extra={"metavar": "NAME"},
        ),
    ] = None
    group: Group = ("auto",)
    near: Near = None
    seed: Seed = 0
