"""``defectrt serve``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from defectrt.config.command_line import given, keys, with_file, with_options
from defectrt.config.engine import EngineConfig
from defectrt.extras import requires

from ..service.config import AREAS, ServeConfig

__all__ = ["serve"]


@with_options(*AREAS)
def serve(
    config: Annotated[
        Path | None, typer.Option(help="YAML file; its keys are the options below, with _ for -.")
    ] = None,
    **options: Any,
) -> None:
    """Serve an engine over HTTP: pictures in, pictures with defects and labels out.

    POST /v1/synthesize takes a picture, and maybe a mask, type, strength and seed; the same image,
    name, number, engine and options give the same bytes as defectrt synthesize. Jobs over folders
    run as the command line's own and survive a restart. /healthz, /readyz and /metrics are for
    whatever watches over it, /openapi.json describes it all. Ctrl-C and SIGTERM finish what was
    taken in.

    Examples:

      defectrt serve

      defectrt serve --engine engines/part --also other=engines/other --port 9000

      defectrt serve --images line=/data/good --jobs /data/jobs

      defectrt serve --host 0.0.0.0 --token-file token --tls-cert cert.pem --tls-key key.pem
    """
    values = with_file(config, given(options, *AREAS))
    names = {key for key, _ in keys(EngineConfig)}
    engine = EngineConfig(**{key: value for key, value in values.items() if key in names})
    how = ServeConfig(**{key: value for key, value in values.items() if key not in names})
    with requires("serve"):
        from ..service.server import run

    run(how, engine)
