"""The service on a socket."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from defectrt.config.engine import EngineConfig
from defectrt.errors import InputError, OutputError
from defectrt.stopping import asked_to_stop

from .config import ServeConfig
from .http import make_app
from .opened import Service

__all__ = ["run"]

#: Connections that may wait to be accepted, and seconds that an idle one stays open.
_BACKLOG, _IDLE = 128, 30


def run(config: ServeConfig, engine: EngineConfig) -> None:
    """Serve until told to stop; what was taken in is finished first.

    Raises `OutputError` if the address is not to be had, and the errors of opening an engine.
    """
    for path in filter(None, (config.tls_cert, config.tls_key)):
        if not path.is_file():
            raise InputError(f"{path}: no such file")
    with _listening(config) as listener, Service(config, engine) as service:
        app = make_app(config, service)
        port = listener.getsockname()[1]
        print(f"defectrt serve: {config.url(port)}", file=sys.stderr, flush=True)
        server = _Server(
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
                lifespan="off",
            )
        )
        server.run(sockets=[listener])


class _Server(uvicorn.Server):
    """A server that ends by itself after a signal: nothing was left undone."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Finish what was taken in at the first signal; the second one ends the program."""
        with asked_to_stop(lambda: setattr(self, "should_exit", True), theirs=True):
            yield


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
