"""A connection that has to say something: one that only stays open is closed."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["Connection"]

#: Seconds in which a request's head has to arrive, and a body that nobody reads any more.
HEAD_SECONDS = 15.0
#: Connections that may be open at once.
MOST = 512


class Connection(H11Protocol):
    """HTTP/1.1 whose requests have a time to begin in, and whose connections are counted.

    Where there are too many, the one that has waited longest with a head that is not whole is
    closed: who asks at once gets an answer, however many others only hold on.
    """

    _end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._await_head()
        if len(self.connections) > MOST:
            heads = [c for c in self.connections if isinstance(c, Connection) and c._end]
            oldest = min(heads, key=lambda c: c._end.when() if c._end else 0)
            oldest._give_up()

    def data_received(self, data: bytes) -> None:
        """Go on; between two requests the next one's head is waited for from its first byte."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()
        elif self._end is None:
            self._await_head()

    def on_response_complete(self) -> None:
        """From here uvicorn closes a connection that stays idle."""
        self._stop_waiting()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing more is waited for."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        self._end = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def _give_up(self) -> None:
        self._stop_waiting()
        self.connections.discard(self)
        self.transport.abort()

    def _stop_waiting(self) -> None:
        if self._end:
            self._end.cancel()
            self._end = None
