"""``defectrt sign``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..config.signing import Algorithm

__all__ = ["sign"]


def sign(
    made: Annotated[Path, typer.Argument(help="A finished dataset, or a made picture.")],
    out: Annotated[Path, typer.Option(help="Folder for the signed copies.")],
    certificate: Annotated[
        Path, typer.Option(help="Your chain of certificates in PEM, the signer's first.")
    ],
    key: Annotated[Path, typer.Option(help="Its private key in PEM.")],
    algorithm: Annotated[Algorithm, typer.Option(help="What the key signs by.")] = "es256",
    timestamp_url: Annotated[
        str | None, typer.Option(help="Time-stamp authority to ask; none by default.")
    ] = None,
) -> None:
    """Sign copies of made pictures by C2PA: that they are made, by whom and with what.

    The dataset itself stays as it is.

    Example:

      defectrt sign data --out signed --certificate chain.pem --key key.pem
    """
    from ..output.sign import sign as run

    count = run(
        made,
        out,
        certificate=certificate,
        key=key,
        algorithm=algorithm,
        timestamp_url=timestamp_url,
    )
    typer.echo(f"{out}: {count} signed pictures")
