"""The service on a socket."""

from __future__ import annotations

import math
import socket
import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from defectrt.config.engine import EngineConfig
from defectrt.errors import InputError, OutputError
from defectrt.stopping import asked_to_stop

from .config import ServeConfig
from .connection import Connection
from .http import make_app
from .opened import Service

__all__ = ["check_certificate", "listening", "make_server", "run"]

#: Connections that may wait to be accepted, and seconds that an idle one stays open.
_BACKLOG, _IDLE = 128, 30


def run(config: ServeConfig, engine: EngineConfig) -> None:
    """Serve until told to stop; what was taken in is finished first.

    Raises `OutputError` if the address is not to be had, and the errors of opening an engine.
    """
    config.token()
    check_certificate(config)
    with listening(config) as listener, Service(config, engine) as service:
        port = listener.getsockname()[1]
        print(f"defectrt serve: {config.url(port)}", file=sys.stderr, flush=True)
        make_server(config, make_app(config, service)).run(sockets=[listener])


def make_server(config: ServeConfig, app: FastAPI) -> uvicorn.Server:
    """What answers on a socket."""
    return _Server(
        uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_IDLE,
            timeout_graceful_shutdown=math.ceil(config.timeout),
            ssl_certfile=config.tls_cert,
            ssl_keyfile=config.tls_key,
            http=Connection,
            ws="none",
            lifespan="off",
        )
    )


def check_certificate(config: ServeConfig) -> None:
    """Raise `InputError` for a certificate or a key that cannot be used."""
    if not config.tls_cert:
        return
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(config.tls_cert, config.tls_key, password=lambda: b"")
    except (OSError, ValueError) as error:
        raise InputError(
            f"{config.tls_cert}, {config.tls_key}: no certificate with its key, in PEM and "
            f"without a password ({error})"
        ) from error


class _Server(uvicorn.Server):
    """A server that ends by itself after a signal: nothing was left undone."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Finish what was taken in at the first signal; the second one ends the program."""
        with asked_to_stop(lambda: setattr(self, "should_exit", True), theirs=True):
            yield


def listening(config: ServeConfig) -> socket.socket:
    """A socket at the service's address. Raises `OutputError` if that is not to be had."""
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # of Linux; a client that reads nothing, or is gone
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * _IDLE)
        listener.bind((config.host.strip("[]"), config.port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise OutputError(
            f"{config.host}:{config.port}: cannot listen there ({error.strerror}); "
            "choose another --port"
        ) from error
    return listener
