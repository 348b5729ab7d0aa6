"""A studio on a socket of its own, in a thread of this process."""

from __future__ import annotations

import threading
from contextlib import contextmanager

import httpx

from defectrt.apps.service.opened import Service
from defectrt.apps.service.server import listening, make_server
from defectrt.apps.studio.config import StudioConfig
from defectrt.apps.studio.home import Home
from defectrt.apps.studio.http import make_studio
from defectrt.apps.studio.server import with_token
from defectrt.apps.studio.tasks import Tasks
from defectrt.config.engine import EngineConfig


@contextmanager
def studio(folder, engine=None):
    """Serve a studio; yields a client with its token, and the link to its page."""
    given = {"engine": engine} if engine else {}
    home = Home(folder, 10_000_000)
    config = with_token(StudioConfig(port=0, folder=folder), home)
    with (
        listening(config) as listener,
        Service(config, EngineConfig(**given)) as service,
        Tasks(home.folder / "tasks") as tasks,
    ):
        server = make_server(config, make_studio(config, service, home, tasks))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        url = config.url(listener.getsockname()[1])
        headers = {"Authorization": f"Bearer {config.token()}"}
        with httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False) as client:
            try:
                yield client, f"{url}/studio/#token={config.token()}"
            finally:
                server.should_exit = True
                thread.join(60)
                assert not thread.is_alive()
