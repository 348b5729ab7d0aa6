"""The service on a socket."""

from __future__ import annotations

import socket
import sys

import uvicorn

from defectrt.config.engine import EngineConfig
from defectrt.errors import InputError, OutputError

from .config import ServeConfig
from .http import make_app

__all__ = ["run"]

#: Connections that may wait to be accepted, and seconds that an idle one stays open.
_BACKLOG, _IDLE = 128, 30


def run(config: ServeConfig, engine: EngineConfig) -> None:
    """Serve until told to stop; what was taken in is finished first.

    Raises `OutputError` if the address is not to be had, and the errors of opening an engine.
    """
    app = make_app(config, engine)
    for path in filter(None, (config.tls_cert, config.tls_key)):
        if not path.is_file():
            raise InputError(f"{path}: no such file")
    with _listening(config) as listener:
        port = listener.getsockname()[1]
        print(f"defectrt serve: {config.url(port)}", file=sys.stderr, flush=True)
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                log_level="warning",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=_IDLE,
                timeout_graceful_shutdown=round(config.timeout),
                ssl_certfile=config.tls_cert,
                ssl_keyfile=config.tls_key,
                lifespan="on",
            )
        )
        server.run(sockets=[listener])


def _listening(config: ServeConfig) -> socket.socket:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((config.host.strip("[]"), config.port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise OutputError(
            f"{config.host}:{config.port}: cannot listen there ({error.strerror}); "
            "choose another --port"
        ) from error
    return listener
