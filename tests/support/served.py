"""A service on a socket of its own, in a thread of this process."""

from __future__ import annotations

import io
import threading
from contextlib import contextmanager

import httpx
import numpy as np
from PIL import Image

from defectrt.apps.service.config import ServeConfig
from defectrt.apps.service.http import make_app
from defectrt.apps.service.opened import Service
from defectrt.apps.service.server import listening, make_server
from defectrt.config.engine import EngineConfig


@contextmanager
def served(engine=None, **options):
    """Serve an engine's directory; yields a client and the service."""
    config = ServeConfig(port=0, **options)
    given = {"engine": engine} if engine else {}
    with listening(config) as listener, Service(config, EngineConfig(**given)) as service:
        server = make_server(config, make_app(config, service))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        url = config.url(listener.getsockname()[1])
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
            try:
                yield client, service
            finally:
                server.should_exit = True
                thread.join(60)
                assert not thread.is_alive()


def png(shape=(50, 60), seed=0, level=150):
    """A good image as the bytes of a file."""
    grain = np.random.default_rng(seed).normal(level, 6, shape)
    return encoded(grain.clip(0, 255).astype(np.uint8))


def mask_png(shape=(50, 60)):
    """Its mask."""
    mask = np.zeros(shape, np.uint8)
    mask[20:28, 12:22] = 255
    return encoded(mask)


def encoded(array):
    """An array as a PNG."""
    data = io.BytesIO()
    Image.fromarray(array).save(data, "PNG")
    return data.getvalue()


def decoded(data):
    """A PNG as an array."""
    return np.asarray(Image.open(io.BytesIO(data)))
