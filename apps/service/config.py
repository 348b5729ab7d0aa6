"""How the service is run."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from defectrt.config.base import Config
from defectrt.config.engine import EngineConfig
from defectrt.errors import InputError
from defectrt.files import read_input

__all__ = ["ServeConfig", "is_loopback"]

#: Of a token, so that it cannot be guessed.
_MIN_TOKEN, _MAX_TOKEN = 16, 4096


class ServeConfig(Config):
    """Where the service listens, whom it serves, and how much it takes."""

    host: Annotated[
        str, Field(description="Address to listen on; any but the loopback needs a token.")
    ] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535, description="Port; 0: any that is free.")] = 8765
    engines: Annotated[
        dict[str, Path],
        Field(
            default_factory=dict,
            alias="also",
            description="A further engine, by the name that requests give it; repeat for more.",
            json_schema_extra={"metavar": "NAME=DIR"},
        ),
    ]
    token_file: Annotated[
        Path | None,
        Field(
            description="File with the token that requests carry, as in Authorization: Bearer; at "
            f"least {_MIN_TOKEN} characters."
        ),
    ] = None
    tls_cert: Annotated[Path | None, Field(description="Certificate for HTTPS, PEM.")] = None
    tls_key: Annotated[Path | None, Field(description="Its private key, PEM.")] = None
    allow_host: Annotated[
        tuple[str, ...],
        Field(
            description="A name by which browsers and clients may call the service, beside HOST; "
            "repeat for more."
        ),
    ] = ()
    queue: Annotated[
        int, Field(ge=1, description="Samples that may be under way or wait; more get 429.")
    ] = 64
    max_bytes: Annotated[
        int, Field(ge=1024, description="Bytes of a request; more get 413 before they are read.")
    ] = 64 << 20
    max_pixels: Annotated[
        int, Field(ge=1, description="Pixels of an image; more get 413 before they are decoded.")
    ] = 64_000_000
    timeout: Annotated[
        float, Field(gt=0, description="Seconds that a sample may take; more get 504.")
    ] = 120.0
    images: Annotated[
        dict[str, Path],
        Field(
            default_factory=dict,
            description="Folder of good images for jobs, by the name that requests give it; repeat "
            "for more.",
            json_schema_extra={"metavar": "NAME=DIR"},
        ),
    ]
    jobs: Annotated[
        Path | None,
        Field(description="Folder for the datasets of jobs; without it there are no jobs."),
    ] = None

    @model_validator(mode="after")
    def _goes_together(self) -> ServeConfig:
        if not is_loopback(self.host) and not self.token_file:
            raise ValueError(
                f"host {self.host}: others than this machine could connect; give --token-file"
            )
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key: give both or none")
        if self.jobs and not self.images:
            raise ValueError("jobs: of which images? give --images NAME=DIR")
        if self.images and not self.jobs:
            raise ValueError("images: where do their datasets go? give --jobs DIR")
        return self

    def url(self, port: int) -> str:
        """Where clients find it."""
        host = f"[{self.host.strip('[]')}]" if ":" in self.host else self.host
        return f"{'https' if self.tls_cert else 'http'}://{host}:{port}"

    def token(self) -> str | None:
        """The token, if there is one. Raises `InputError` for one too short or not there."""
        if not self.token_file:
            return None
        token = read_input(self.token_file, _MAX_TOKEN).decode(errors="replace").strip()
        if len(token) < _MIN_TOKEN or not token.isprintable() or " " in token:
            raise InputError(
                f"{self.token_file}: a token has at least {_MIN_TOKEN} characters, without spaces; "
                "make one with: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
            )
        return token


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to an address."""
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


#: The areas of the command, in the order in which they are shown.
AREAS = (ServeConfig, EngineConfig)
