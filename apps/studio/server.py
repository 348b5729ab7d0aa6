"""The studio on a socket."""

from __future__ import annotations

import secrets
import sys
import webbrowser
from threading import Timer

from defectrt.config.engine import EngineConfig
from defectrt.files import write_whole

from ..service.opened import Service
from ..service.server import check_certificate, listening, make_server
from .config import StudioConfig
from .home import Home
from .http import make_studio
from .tasks import Tasks

__all__ = ["run", "with_token"]

#: Seconds after which the page is opened: the socket listens already.
_SOON = 0.5


def run(config: StudioConfig, engine: EngineConfig) -> None:
    """Serve until told to stop; commands that run go on without it. Raises as the service does."""
    check_certificate(config)
    home = Home(config.folder, config.max_pixels)
    config = with_token(config, home)
    with (
        listening(config) as listener,
        Service(config, engine) as service,
        Tasks(home.folder / "tasks") as tasks,
    ):
        app = make_studio(config, service, home, tasks)
        port = listener.getsockname()[1]
        url = f"{config.url(port)}/studio/#token={config.token()}"
        print(f"defectrt studio: {url}", file=sys.stderr, flush=True)
        if config.browser:
            Timer(_SOON, webbrowser.open, [url]).start()
        make_server(config, app).run(sockets=[listener])


def with_token(config: StudioConfig, home: Home) -> StudioConfig:
    """The configuration with a token, on the loopback too, as pages may read the user's files.

    It stays the same over restarts, so that a page that is open stays useful.
    """
    if config.token_file:
        return config
    path = home.folder / "token"
    if not path.exists():
        write_whole(path, b"")
        path.chmod(0o600)
        path.write_text(secrets.token_urlsafe(32))
    return config.replace(token_file=path)
